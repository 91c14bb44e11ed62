//go:build slow

package repo

const everyNth = 1
