package runbook

import (
	"path"
	"regexp"
	"strings"
)

// action reads `do: name, with: {…}`.
func (r *stepReader) action(name, with *yamlNode, role string, how use) *Call {
	c := &Call{Action: r.text(name, "do")}
	if c.Action == "" {
		r.add(name.at, "do names no action")
	}
	d := callDraft{call: c, role: role, at: name.at, withAt: map[string]pos{}}
	nothing := with == nil || with.kind == yamlScalar && with.value == nil
	if !nothing && with.kind != yamlMap {
		r.add(with.at, "with is not a mapping of inputs to values")
	} else if !nothing {
		c.With = map[string]Value{}
		for _, k := range with.keys {
			c.With[k.name] = r.value(k.value, k.name, how)
			d.withAt[k.name] = k.at
		}
	}
	if len(c.With) == 0 {
		c.With = nil
	}
	r.s.calls = append(r.s.calls, d)
	return c
}

// call reads a CALL: an action with inputs, or a command.
func (r *stepReader) call(n *yamlNode, role string, how use) *Call {
	if n == nil {
		return nil
	}
	if n.kind != yamlMap {
		r.suggest(n.at, role+": {do: ACTION, with: {…}}", "%s is not a call", role)
		return nil
	}
	r.object(n, role, "do", "with", "run")
	do, run := n.key("do"), n.key("run")
	switch {
	case do != nil && run != nil:
		r.add(run.at, "%s has both do and run; choose one", role)
	case do != nil:
		return r.action(do, n.key("with"), role, how)
	case run != nil:
		return &Call{Run: r.command(run, how)}
	default:
		r.add(n.at, "%s needs do or run", role)
	}
	return nil
}

func (r *stepReader) command(n *yamlNode, how use) *Command {
	c := &Command{}
	if n.kind == yamlScalar {
		r.suggest(n.at, "write a list, [pg_ctl, promote], or {script: …}", "a command line in one text would need a shell")
		return c
	}
	if n.kind == yamlList {
		c.Argv = r.argv(n, how)
		return c
	}
	r.object(n, "run", "argv", "script", "env", "host")
	argv, script := n.key("argv"), n.key("script")
	if (argv == nil) == (script == nil) {
		r.add(n.at, "run needs argv or script, one of them")
	}
	if argv != nil {
		c.Argv = r.argv(argv, how)
	}
	if script != nil {
		c.Script = r.text(script, "script")
		r.script(script, c.Script)
	}
	c.Env = r.env(n.key("env"), how)
	c.Host = r.template(n.key("host"), how)
	return c
}

func (r *stepReader) argv(n *yamlNode, how use) []Value {
	if n.kind != yamlList || len(n.items) == 0 {
		r.add(n.at, "a command is a list that begins with the program")
		return nil
	}
	var list []Value
	for i, item := range n.items {
		if item.kind != yamlScalar || item.value == nil {
			r.add(item.at, "an argument is not text")
			continue
		}
		v := r.value(item, "the argument", how)
		if v.Template == "" {
			v.Literal = asText(v.Literal)
		}
		if i > 0 && inlineScript(n.items[0], n.items[i-1]) {
			r.script(item, asText(item.value))
		}
		list = append(list, v)
	}
	return list
}

var inlineFlag = regexp.MustCompile(`^-[a-zA-Z]*[ce]$`)

// inlineScript says whether the argument after flag is program text.
func inlineScript(program, flag *yamlNode) bool {
	base := path.Base(asText(program.value))
	switch strings.TrimRight(base, "0123456789.") {
	case "sh", "bash", "dash", "ash", "zsh", "ksh", "python", "perl", "ruby", "psql", "node":
		return inlineFlag.MatchString(asText(flag.value))
	default:
		return false
	}
}

var ours = regexp.MustCompile(`\b(inputs|steps|objective|each|run)\b`)

// script refuses our templates in program text: a value could become a command.
func (r *stepReader) script(n *yamlNode, text string) {
	at := 0
	for {
		open := strings.Index(text[at:], "{{")
		if open < 0 {
			return
		}
		open += at
		inner := text[open+2:]
		if end := closing(inner); end >= 0 {
			inner = inner[:end]
		}
		if _, err := parseExpr(inner); err == nil || ours.MatchString(inner) {
			r.suggest(n.within(open), "pass the value through env and use $RELIGHT_NAME",
				"a template stands inside a script, where its value could become a command")
		}
		at = open + 2
	}
}

var envForm = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

func (r *stepReader) env(n *yamlNode, how use) map[string]Value {
	if n == nil {
		return nil
	}
	if n.kind != yamlMap {
		r.add(n.at, "env is not a mapping of names to values")
		return nil
	}
	env := map[string]Value{}
	for _, k := range n.keys {
		if !envForm.MatchString(k.name) {
			r.suggest(k.at, "a name x arrives as $RELIGHT_X", "%q cannot be a name in env; use lower case letters, digits and _", k.name)
		}
		env[k.name] = r.value(k.value, k.name, how)
	}
	return env
}

func (r *stepReader) ask(n *yamlNode) *Ask {
	a := &Ask{Text: r.s.step.Title}
	switch {
	case n == nil || n.kind == yamlScalar && n.value == nil:
	case n.kind == yamlScalar:
		a.Text = r.template(n, use{each: true})
	default:
		r.object(n, "ask", "text", "role", "approval", "other", "answer")
		if t := n.key("text"); t != nil {
			a.Text = r.template(t, use{each: true})
		}
		a.Role = r.text(n.key("role"), "role")
		a.Approval = r.boolean(n.key("approval"), "approval")
		a.Other = r.boolean(n.key("other"), "other")
		a.Answer = r.answer(n.key("answer"))
		r.askRules(n, a)
	}
	return a
}

func (r *stepReader) askRules(n *yamlNode, a *Ask) {
	if role := n.key("role"); role != nil && len(r.rb.Roles) > 0 {
		r.oneOf(role, "role", r.rb.Roles)
	}
	if a.Approval && a.Answer != nil {
		r.add(n.key("answer").at, "an approval is a person's signature; it cannot be answered in advance")
	}
}

func (r *stepReader) answer(n *yamlNode) *Value {
	if n == nil {
		return nil
	}
	v := r.value(n, "answer", use{})
	return &v
}

func (r *stepReader) choose(n *yamlNode) *Choose {
	c := &Choose{Text: r.s.step.Title, Options: []Option{}}
	if !r.object(n, "choose", "text", "options", "recommend", "answer") {
		return c
	}
	if t := n.key("text"); t != nil {
		c.Text = r.template(t, use{})
	}
	c.Recommend = r.expr(n.key("recommend"), use{})
	c.Answer = r.answer(n.key("answer"))
	options := n.key("options")
	if options == nil || options.kind != yamlList || len(options.items) == 0 {
		r.add(n.at, "choose has no list of options")
		return c
	}
	for _, item := range options.items {
		c.Options = append(c.Options, r.option(item, c.Options))
	}
	r.chooseRules(n, c)
	return c
}

func (r *stepReader) option(n *yamlNode, before []Option) Option {
	var o Option
	if !r.object(n, "an option", "id", "title", "available", "reason", "steps") {
		r.s.optionAt = append(r.s.optionAt, nil)
		return o
	}
	o.ID = r.text(n.key("id"), "id")
	o.Title = r.template(n.key("title"), use{})
	o.Available = r.expr(n.key("available"), use{})
	o.Reason = r.template(n.key("reason"), use{})
	var at []pos
	o.Steps, at = r.texts(n.key("steps"), "steps")
	if o.Steps == nil {
		o.Steps = []string{}
	}
	r.s.optionAt = append(r.s.optionAt, at)
	switch {
	case !idForm.MatchString(o.ID) || o.ID == "recommended":
		r.add(n.at, "%q cannot be the id of an option", o.ID)
	case o.Title == "":
		r.add(n.at, "option %q has no title", o.ID)
	case o.Available != nil && o.Reason == "":
		r.add(n.at, "option %q may be unavailable; its reason must be written", o.ID)
	}
	for _, b := range before {
		if b.ID == o.ID {
			r.add(n.at, "there are two options %q", o.ID)
		}
	}
	return o
}

// chooseRules checks words that name an option, where they are written out.
func (r *stepReader) chooseRules(n *yamlNode, c *Choose) {
	ids := []string{}
	for _, o := range c.Options {
		ids = append(ids, o.ID)
	}
	if c.Recommend != nil {
		if l, ok := c.Recommend.node.(*literalNode); ok {
			r.named(n.key("recommend"), l.value, ids)
		}
	}
	if c.Answer != nil && c.Answer.Template == "" && c.Answer.Literal != nil {
		r.named(n.key("answer"), c.Answer.Literal, append(ids, "recommended"))
	}
}

func (r *stepReader) named(n *yamlNode, v any, ids []string) {
	for _, id := range ids {
		if v == id {
			return
		}
	}
	r.unknown(n.at, "option", asText(v), ids)
}

func (r *stepReader) wait(n *yamlNode) *Wait {
	w := &Wait{}
	if n.kind == yamlScalar {
		w.For = r.positive(n, "wait")
		return w
	}
	if !r.object(n, "wait", "for", "until", "every") {
		return w
	}
	w.For = r.positive(n.key("for"), "for")
	w.Until = r.call(n.key("until"), "until", use{each: true})
	w.Every = r.positive(n.key("every"), "every")
	switch {
	case n.key("for") == nil && n.key("until") == nil:
		r.add(n.at, "wait says neither how long nor until what")
	case w.Every != 0 && w.Until == nil:
		r.add(n.at, "every belongs to until")
	}
	return w
}
