package replication

import (
	"fmt"
	"strconv"
	"strings"
)

// Version turns "15.14 (Debian 15.14-0+deb12u1)" into 150014, the form of server_version_num.
func Version(s string) (int, error) {
	word, _, _ := strings.Cut(s, " ")
	major, minor, _ := strings.Cut(word, ".")
	n, err := strconv.Atoi(leading(major))
	if err != nil || n < 10 {
		return 0, fmt.Errorf("server version %q is not understood", s)
	}
	m, err := strconv.Atoi(leading(minor))
	if err != nil {
		m = 0 // a development version: "17beta1"
	}
	return n*10000 + m, nil
}

func leading(s string) string {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return s[:i]
		}
	}
	return s
}

// parseSize reads "16MB", "1GB".
func parseSize(s string) (int64, error) {
	units := map[string]int64{"B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
	digits := leading(s)
	n, err := strconv.ParseInt(digits, 10, 32)
	unit, ok := units[s[len(digits):]]
	if err != nil || !ok {
		return 0, fmt.Errorf("size %q is not understood", s)
	}
	return n * unit, nil
}

// quote makes an identifier of the replication grammar.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
