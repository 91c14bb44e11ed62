//go:build !slow

package repo

// everyNth operation is where the parties of a race change; with the tag slow it is every one.
const everyNth = 17
