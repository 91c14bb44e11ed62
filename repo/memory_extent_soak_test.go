//go:build slow && soak

package repo

const tibOwnerToo = true
