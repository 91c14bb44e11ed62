#!/usr/bin/env python3
"""Turns what a program printed into a picture of a terminal, as SVG, for a README.

    relight demo 2>&1 | tee demo.txt
    docs/demo-svg.py 'relight demo' < demo.txt > docs/demo.svg

Nothing is left out or changed: long lines are wrapped. Colours follow the shape of a line.
"""
import html
import re
import sys

COLUMNS, CHAR, LINE, PAD, BAR = 108, 7.83, 18, 18, 36
COLOURS = [  # the first pattern that a line matches
    (r"^\$ ", "#e6edf3", 600),
    (r"▸", "#79c0ff", 600),
    (r"^\s+\$ ", "#8b949e", 400),
    (r"^(lost\s+0|RPO|RTO|recovered\s+\d+$|verified\s+yes|protected again\s+yes)", "#7ee787", 600),
    (r"(server|relight) killed|does not come up", "#ff7b72", 600),
    (r"^─+$", "#484f58", 400),
    (r"^  \w+\S*\s+\d\d:\d\d:\d\d", "#8b949e", 400),
    (r"", "#c9d1d9", 400),
]


def wrap(line):
    """Cuts a line at the last blank before the edge and indents the rest."""
    rest = line
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    while len(rest) > COLUMNS:
        cut = rest.rfind(" ", len(indent) + 1, COLUMNS)
        cut = cut if cut > 0 else COLUMNS
        yield rest[:cut]
        rest = indent + rest[cut:].lstrip()
    yield rest


def row(y, text, colour, weight):
    return (f'<text x="{PAD}" y="{y}" fill="{colour}" font-weight="{weight}" xml:space="preserve">'
            f"{html.escape(text, quote=False)}</text>")


def main():
    title = sys.argv[1] if len(sys.argv) > 1 else "relight"
    lines = [f"$ {title}"] + sys.stdin.read().rstrip("\n").split("\n")
    rows, y = [], BAR + PAD + 4
    for line in lines:
        line = line.replace("\r", "").rstrip()
        colour, weight = next((c, w) for pattern, c, w in COLOURS if re.search(pattern, line))
        for part in wrap(line):
            if part:
                rows.append(row(y, part, colour, weight))
            y += LINE
    width, height = round(2 * PAD + COLUMNS * CHAR), y + PAD - 8
    dots = "".join(f'<circle cx="{PAD + 6 + 20 * i}" cy="{BAR // 2}" r="6" fill="{c}"/>'
                   for i, c in enumerate(("#ff5f57", "#febc2e", "#28c840")))
    sys.stdout.write(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,\'DejaVu Sans Mono\',monospace" font-size="13">\n'
        f"<title>{html.escape(title)}</title>\n"
        f'<rect width="{width}" height="{height}" rx="10" fill="#0d1117"/>\n'
        f'<path d="M0 {BAR}V10A10 10 0 0 1 10 0H{width - 10}A10 10 0 0 1 {width} 10V{BAR}z" fill="#161b22"/>\n{dots}\n'
        f'<text x="{width / 2}" y="{BAR // 2 + 4}" fill="#8b949e" text-anchor="middle">{html.escape(title)}</text>\n'
        + "\n".join(rows) + "\n</svg>\n")


if __name__ == "__main__":
    main()
