//go:build slow && !soak

package repo

const tibOwnerToo = false // a check and retention, which mark by the same code: half the time of the whole test
