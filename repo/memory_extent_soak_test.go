//go:build soak

package repo

const tibOwnerToo = true
