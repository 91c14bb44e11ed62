package runbook

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"
)

func frontKeys() []string {
	return []string{
		"runbook", "title", "priority", "objective", "trigger", "inputs", "roles",
		"version", "status", "owner", "updated", "review_by",
	}
}

// immediateRTO is what `rto: immediate` measures: the end of containment (relight.Objective).
const immediateRTO = 5 * time.Minute

func (d *draft) front(text string) {
	n := d.readYAML(text, 1, "the front matter")
	if n == nil || !d.object(n, "the front matter", frontKeys()...) {
		return
	}
	rb := d.rb
	rb.Name = d.text(n.key("runbook"), "runbook")
	if !idForm.MatchString(rb.Name) {
		at := n.at
		if k := n.key("runbook"); k != nil {
			at = k.at
		}
		d.suggest(at, "write runbook: database-corruption, in lower case with dashes", "the runbook has no proper name")
	}
	rb.Title = d.text(n.key("title"), "title")
	rb.Priority = d.oneOf(n.key("priority"), "priority", []string{"P0", "P1", "P2", "P3"})
	rb.Triggers, _ = d.texts(n.key("trigger"), "trigger")
	rb.Roles, _ = d.texts(n.key("roles"), "roles")
	rb.Version = d.text(n.key("version"), "version")
	rb.Status = d.text(n.key("status"), "status")
	rb.Owner = d.text(n.key("owner"), "owner")
	rb.Updated = d.date(n.key("updated"), "updated")
	rb.ReviewBy = d.date(n.key("review_by"), "review_by")
	d.objective(n.key("objective"))
	d.inputs(n.key("inputs"))
}

func (d *draft) objective(n *yamlNode) {
	if n == nil || !d.object(n, "objective", "rto", "rpo") {
		return
	}
	rto, rpo := n.key("rto"), n.key("rpo")
	if rto == nil || rpo == nil {
		d.add(n.at, "the objective needs both rto and rpo")
		return
	}
	o := &d.rb.Objective
	if d.text(rto, "rto") == "immediate" {
		o.Immediate, o.RTO = true, immediateRTO
	} else {
		o.RTO = d.duration(rto, "rto")
	}
	o.RPO = d.duration(rpo, "rpo")
}

var inputForm = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

func inputTypes() []string { return []string{"string", "int", "bool", "duration", "time"} }

func (d *draft) inputs(n *yamlNode) {
	if n == nil || n.kind == yamlScalar && n.value == nil {
		return
	}
	if n.kind != yamlMap {
		d.add(n.at, "inputs is not a mapping of names to defaults")
		return
	}
	d.at.inputs = map[string]pos{}
	for _, k := range n.keys {
		d.at.inputs[k.name] = k.at
		if !inputForm.MatchString(k.name) {
			d.add(k.at, "%q cannot be the name of an input; use lower case letters, digits and _", k.name)
			continue
		}
		d.rb.Inputs = append(d.rb.Inputs, d.input(k))
	}
}

func (d *draft) input(k yamlKey) Input {
	in := Input{Name: k.name, Type: "string"}
	n := k.value
	switch n.kind {
	case yamlScalar:
		in.Type, in.Default = typeOfScalar(n.value), asText(n.value)
		return in
	case yamlList:
		d.add(n.at, "input %q is a list; give its default, or type, default, help, required, enum", k.name)
		return in
	}
	d.object(n, fmt.Sprintf("input %q", k.name), "type", "default", "help", "required", "enum")
	def := n.key("default")
	in.Default, in.Help = d.text(def, "default"), d.text(n.key("help"), "help")
	in.Required = d.boolean(n.key("required"), "required")
	in.Enum, _ = d.texts(n.key("enum"), "enum")
	if def != nil {
		in.Type = typeOfScalar(def.value)
	}
	if t := d.oneOf(n.key("type"), "type", inputTypes()); t != "" {
		in.Type = t
	}
	if in.Required && in.Default != "" {
		d.add(n.at, "input %q is required and has a default; choose one", k.name)
	}
	d.defaultOf(in, def)
	return in
}

func (d *draft) defaultOf(in Input, n *yamlNode) {
	if n == nil || in.Default == "" {
		return
	}
	if _, err := in.convert(in.Default); err != nil {
		d.add(n.at, "the default of input %q: %s", in.Name, err)
	}
}

func typeOfScalar(v any) string {
	switch v.(type) {
	case bool:
		return "bool"
	case int64:
		return "int"
	default:
		return "string"
	}
}

// timeForms are the forms of a time; those without an offset are read in the estate's time zone.
func timeForms() []string {
	return []string{time.RFC3339Nano, "2006-01-02 15:04:05Z07:00", "2006-01-02T15:04:05", time.DateTime, "2006-01-02 15:04", time.DateOnly}
}

// convert gives the typed value: string, int64 or bool. Durations and times stay text, in the form that was checked.
func (in Input) convert(v any) (any, error) {
	text := asText(v)
	if len(in.Enum) > 0 && !slices.Contains(in.Enum, text) {
		return nil, fmt.Errorf("%q is none of %v", text, in.Enum)
	}
	switch in.Type {
	case "int":
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a whole number", text)
		}
		return n, nil
	case "bool":
		b, err := strconv.ParseBool(text)
		if err != nil {
			return nil, fmt.Errorf("%q is neither true nor false", text)
		}
		return b, nil
	case "duration":
		_, err := parseDuration(text)
		return text, err
	case "time":
		for _, form := range timeForms() {
			if _, err := time.Parse(form, text); err == nil {
				return text, nil
			}
		}
		return nil, fmt.Errorf("%q is not a time such as 2025-10-02 14:30:00", text)
	default:
		return text, nil
	}
}
