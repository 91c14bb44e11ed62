package estate

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/toolboxai/relight"
)

const packed = `
estate: shop
repositories:
  vault: {url: backup}
runbooks: [runbooks]
secrets: {token: "env:TOKEN"}
`

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, path string) *Estate {
	t.Helper()
	e, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func secret(reference string) (string, error) { return "value of " + reference, nil }

func pack(t *testing.T, e *Estate) Bundle {
	t.Helper()
	b, err := e.Pack(secret)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func plainWrite(path string, data []byte, mode fs.FileMode) error {
	return os.WriteFile(path, data, mode)
}

func TestBundleThereAndBack(t *testing.T) {
	t.Parallel()
	dir, bare := t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, FileName), packed)
	write(t, filepath.Join(dir, "runbooks", "own.md"), "# own\n")
	write(t, filepath.Join(dir, "runbooks", "notes.txt"), "not a runbook")
	data, err := pack(t, load(t, filepath.Join(dir, FileName))).Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := pack(t, load(t, filepath.Join(dir, FileName))).Encode()
	if err != nil || !bytes.Equal(data, again) {
		t.Fatal("equal estates encode differently")
	}
	b, err := DecodeBundle(data)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Files) != 2 || b.Secrets["token"] != "value of env:TOKEN" || b.Directory != dir {
		t.Fatalf("%+v", b)
	}
	if there, err := b.Present(bare); there || err != nil {
		t.Fatal("an empty directory holds the estate", err)
	}
	if err := b.Unpack(bare, false, plainWrite); err != nil {
		t.Fatal(err)
	}
	if e := load(t, b.Path(bare)); e.Name != "shop" {
		t.Fatalf("%+v", e)
	}
	if text, err := os.ReadFile(filepath.Join(bare, "runbooks", "own.md")); err != nil || string(text) != "# own\n" {
		t.Fatal(string(text), err)
	}
	if info, err := os.Stat(b.Path(bare)); err != nil || info.Mode().Perm() != 0o640 {
		t.Fatal(info.Mode(), err)
	}
	if there, err := b.Present(bare); !there || err != nil {
		t.Fatal("what was unpacked is not there", err)
	}
	if there, err := b.Present(""); !there || err != nil {
		t.Fatal("it still lies where it lay", err)
	}
}

// A configuration of another name comes back under the name that recovery looks for.
func TestBundleOfAnotherFileName(t *testing.T) {
	t.Parallel()
	dir, bare := t.TempDir(), t.TempDir()
	b := pack(t, load(t, write(t, filepath.Join(dir, "prod.yaml"), packed)))
	if err := b.Unpack(bare, false, plainWrite); err != nil {
		t.Fatal(err)
	}
	if e := load(t, b.Path(bare)); e.Name != "shop" {
		t.Fatalf("%+v", e)
	}
}

func TestUnpackNeverOverwritesInSilence(t *testing.T) {
	t.Parallel()
	dir, bare := t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, "runbooks", "own.md"), "# own\n")
	b := pack(t, load(t, write(t, filepath.Join(dir, FileName), packed)))
	mine := write(t, filepath.Join(bare, "runbooks", "own.md"), "# somebody's work\n")
	err := b.Unpack(bare, false, plainWrite)
	if relight.CodeOf(err) != relight.CodeUsage || !strings.Contains(err.Error(), mine) || relight.HintOf(err) == "" {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.Path(bare)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("half of the bundle was written before the collision was seen")
	}
	if there, err := b.Present(bare); there || err != nil {
		t.Fatal(there, err)
	}
	if err := b.Unpack(bare, true, plainWrite); err != nil {
		t.Fatal(err)
	}
	if err := b.Unpack(bare, false, plainWrite); err != nil {
		t.Fatal("the same files again are no collision:", err)
	}
}

func TestUnpackTellsWhatFailed(t *testing.T) {
	t.Parallel()
	full := errors.New("no space left")
	b := Bundle{Format: 1, Files: []BundleFile{{Path: "a"}}}
	err := b.Unpack(t.TempDir(), false, func(string, []byte, fs.FileMode) error { return full })
	if !errors.Is(err, full) {
		t.Fatal(err)
	}
}

func TestPackRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "elsewhere")
	write(t, filepath.Join(outside, "x.md"), "# x\n")
	e := load(t, write(t, filepath.Join(dir, FileName), "estate: shop\nrunbooks: ["+outside+"]\n"))
	_, err := e.Pack(secret)
	if relight.CodeOf(err) != relight.CodeUsage || !strings.Contains(err.Error(), "lies outside") {
		t.Fatal(err)
	}
	e = load(t, write(t, filepath.Join(dir, FileName), packed))
	gone := errors.New("TOKEN is not set")
	_, err = e.Pack(func(string) (string, error) { return "", gone })
	if !errors.Is(err, gone) || !strings.Contains(err.Error(), "secret token") {
		t.Fatal("a bundle without its secret:", err)
	}
}

func TestDecodeBundleRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		``:             "decode estate bundle",
		`{"format":2}`: "format 2",
		`{}`:           "format 0",
		`{"format":1,"files":[{"path":"../etc/passwd"}]}`:     "leads outside",
		`{"format":1,"files":[{"path":"/etc/passwd"}]}`:       "leads outside",
		`{"format":1,"files":[{"path":"a/../../etc"}]}`:       "leads outside",
		`{"format":1,"files":[{"path":"."}]}`:                 "leads outside",
		`{"format":1,"files":[{"path":""}]}`:                  "leads outside",
		`{"format":1,"files":[{"path":"a/../relight.yaml"}]}`: "leads outside",
	} {
		if _, err := DecodeBundle([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Whatever a bundle says, unpacking it writes below its directory only.
func FuzzDecodeBundle(f *testing.F) {
	f.Add([]byte(`{"format":1,"estate":"shop","directory":"/etc","files":[{"path":"relight.yaml","mode":420,"data":"eA=="}]}`))
	f.Add([]byte(`{"format":1,"files":[{"path":"a/../../b"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := DecodeBundle(data)
		if err != nil {
			return
		}
		root := filepath.Clean("/nowhere/below")
		for _, file := range b.Files {
			path := filepath.Join(root, filepath.FromSlash(file.Path))
			if !strings.HasPrefix(path, root+"/") {
				t.Fatalf("%q leads to %s", file.Path, path)
			}
		}
		again, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeBundle(again); err != nil {
			t.Fatal(err)
		}
	})
}
