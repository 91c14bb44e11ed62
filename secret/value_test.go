package secret_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/toolboxai/relight/secret"
)

const hush = "s3cr3t-h0rse"

type inside struct {
	Public  secret.Value
	private secret.Value
	Ptr     *secret.Value
	Map     map[string]secret.Value
	any     any
}

func wrapped() inside {
	v := secret.New(hush)
	return inside{Public: v, private: v, Ptr: &v, Map: map[string]secret.Value{"k": v}, any: v}
}

func TestNoVerbShowsIt(t *testing.T) {
	t.Parallel()
	v := secret.New(hush)
	hexed := fmt.Sprintf("%x", hush)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p", "%10s", "%U", "% x", "%08v"} {
		if got := fmt.Sprintf(verb, v); got != secret.Mask && verb != "%p" { // %p never asks a value for its form
			t.Errorf("%s prints %q", verb, got)
		}
		for _, x := range []any{wrapped(), []secret.Value{v}, [1]any{v}, map[string]any{"a": wrapped()}, &v, fmt.Errorf("no: %v", v)} {
			got := fmt.Sprintf(verb, x)
			low := strings.ToLower(strings.ReplaceAll(got, " ", ""))
			if strings.Contains(got, hush) || strings.Contains(low, hexed) {
				t.Errorf("%s of %T prints %s", verb, x, got)
			}
		}
	}
	if v.Reveal() != hush || fmt.Sprint(v) != secret.Mask || fmt.Sprintln(v) != secret.Mask+"\n" {
		t.Fatal("reveal or print is wrong")
	}
}

func TestNoEncodingShowsIt(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	j, err := json.Marshal(map[string]any{"a": wrapped(), "b": secret.New(hush)})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(j)
	x, err := xml.Marshal(secret.New(hush))
	if err != nil {
		t.Fatal(err)
	}
	out.Write(x)
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).With("bound", secret.New(hush)).Info("x", "v", secret.New(hush), "in", wrapped(), "p", &inside{},
			slog.Group("g", "v", secret.New(hush)))
	}
	if strings.Contains(out.String(), hush) || strings.Count(out.String(), secret.Mask) < 8 {
		t.Fatal(out.String())
	}
}

func TestZeroAndEqual(t *testing.T) {
	t.Parallel()
	var zero secret.Value
	if !zero.Empty() || zero.Reveal() != "" || fmt.Sprint(zero) != secret.Mask {
		t.Fatal("zero value")
	}
	if !secret.New("a").Equal(secret.New("a")) || secret.New("a").Equal(secret.New("b")) {
		t.Fatal("equal")
	}
}
