//go:build !amd64

package postgres

func mixAll(sums *[checksumLanes]uint32, b []byte) { mixEach(sums, b) }
