package estate

import _ "embed"

// Example is a relight.yaml that uses every key.
//
//go:embed example.yaml
var Example string
