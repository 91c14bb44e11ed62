package postgres

import (
	"encoding/binary"

	"github.com/toolboxai/relight"
)

// The server's page checksum (checksum_impl.h): 32 interleaved FNV-1a sums over the page, folded to 16 bits with
// the absolute block number, so that a page at a wrong place is noticed.
const (
	checksumLanes = 32
	checksumPrime = 16777619
	rowBytes      = 4 * checksumLanes
	pageHeader    = 24
)

var checksumBases = [checksumLanes]uint32{
	0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
	0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
	0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
	0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
}

// pageChecksum is what pd_checksum of the page must be. The length of the page is a multiple of 128.
func pageChecksum(page []byte, block uint32) uint16 {
	sums := checksumBases
	first := [rowBytes]byte(page)
	first[8], first[9] = 0, 0 // pd_checksum itself
	mix(&sums, &first)
	mixAll(&sums, page[rowBytes:])
	var folded uint32
	for i := range sums {
		s := sums[i]
		s = s*checksumPrime ^ s>>17 // two rounds of zeros
		s = s*checksumPrime ^ s>>17
		folded ^= s
	}
	return uint16((folded^block)%65535 + 1)
}

// mixEach takes all rows of b into the sums.
func mixEach(sums *[checksumLanes]uint32, b []byte) {
	for ; len(b) >= rowBytes; b = b[rowBytes:] {
		mix(sums, (*[rowBytes]byte)(b))
	}
}

func mix(sums *[checksumLanes]uint32, row *[rowBytes]byte) {
	for i := range sums {
		t := sums[i] ^ binary.LittleEndian.Uint32(row[4*i:])
		sums[i] = t*checksumPrime ^ t>>17
	}
}

func pageLSN(page []byte) relight.LSN {
	return relight.LSN(uint64(binary.LittleEndian.Uint32(page))<<32 | uint64(binary.LittleEndian.Uint32(page[4:])))
}

// newPage tells whether the server treats the page as never used: pd_upper is zero.
func newPage(page []byte) bool { return binary.LittleEndian.Uint16(page[14:]) == 0 }

func zeroPage(page []byte) bool {
	for i := 0; i+8 <= len(page); i += 8 {
		if binary.LittleEndian.Uint64(page[i:]) != 0 {
			return false
		}
	}
	return true
}

// pageFault says what is wrong with a page as it was read; "" when nothing is. A page that was never used must be
// all zeros.
func pageFault(page []byte, block uint32) string {
	if newPage(page) {
		if zeroPage(page) {
			return ""
		}
		return "neither a page nor empty"
	}
	if binary.LittleEndian.Uint16(page[8:]) != pageChecksum(page, block) {
		return "wrong checksum"
	}
	return ""
}
