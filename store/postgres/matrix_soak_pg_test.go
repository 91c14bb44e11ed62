//go:build pg && soak

package postgres

import "testing"

// TestMatrixOfTenThousandTables takes as many tables through the whole of TestMatrix, on both versions.
func TestMatrixOfTenThousandTables(t *testing.T) {
	for _, v := range []variant{{major: 15, checksums: true, segment: 16, tables: 10_000}, {major: 17, checksums: true, segment: 64, tables: 10_000}} {
		t.Run(v.String(), func(t *testing.T) { matrixOf(t, v) })
	}
}
