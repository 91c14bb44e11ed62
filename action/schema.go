package action

// InputSchema is the JSON Schema (2020-12) of the inputs, ready for json.Marshal, whose key order is stable.
func (a Action) InputSchema() map[string]any {
	properties := map[string]any{}
	required := []string{}
	for _, f := range a.fields {
		properties[f.Name] = f.schema()
		if f.Required {
			required = append(required, f.Name)
		}
	}
	s := map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": a.name, "description": a.title,
		"type": "object", "properties": properties, "additionalProperties": false,
	}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

// OutputSchema is the JSON Schema of the output. Fields may be added in later versions.
func (a Action) OutputSchema() map[string]any {
	s := objectSchema(a.out)
	s["$schema"], s["title"] = "https://json-schema.org/draft/2020-12/schema", a.name
	return s
}

func (f Field) schema() map[string]any {
	s := map[string]any{}
	switch f.Type {
	case TypeBool:
		s["type"] = "boolean"
	case TypeInt:
		s["type"] = "integer"
	case TypeFloat:
		s["type"] = "number"
	case TypeStrings:
		s["type"], s["items"] = "array", f.itemSchema()
	case TypeDuration:
		s["type"], s["pattern"] = "string", `^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$`
	default:
		s = f.itemSchema()
	}
	if f.Help != "" {
		s["description"] = f.Help
	}
	if f.Default != "" {
		s["default"] = f.schemaDefault()
	}
	return s
}

// schemaDefault gives the default its JSON type; durations stay text.
func (f Field) schemaDefault() any {
	if f.Type == TypeDuration {
		return f.Default
	}
	v, err := f.convert(f.Default)
	if err != nil {
		return f.Default
	}
	return v
}

func (f Field) itemSchema() map[string]any {
	s := map[string]any{"type": "string"}
	if len(f.Enum) > 0 {
		s["enum"] = f.Enum
	}
	return s
}

func objectSchema(fields []OutField) map[string]any {
	properties := map[string]any{}
	for _, f := range fields {
		switch {
		case f.Type == "any":
			properties[f.Name] = map[string]any{}
		case f.Type == "object" && len(f.Fields) > 0:
			properties[f.Name] = objectSchema(f.Fields)
		default:
			properties[f.Name] = map[string]any{"type": f.Type}
		}
	}
	return map[string]any{"type": "object", "properties": properties}
}
