"""Writes a table of results down: LaTeX (booktabs), Markdown, CSV. Every name from a study is escaped.

Markdown and LaTeX are for reading and carry rounded numbers; CSV is for machines and carries whole ones.
"""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence

from ablab.contract.units import figure
from ablab.report.references import Reference
from ablab.report.tables import Entry, Group, ResultTable, Row

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "—": "---", "–": "--", "[": "{[}", "]": "{]}",
}  # fmt: skip
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$!&])")
#: What a spreadsheet would take for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_CSV = (
    "comparison", "experiment", "label", "role", "metric", "at", "direction", "n", "mean", "low", "high", "confidence",
    "best", "seeds", "values", "runs", "reference", "reference_source",
)  # fmt: skip
NOTHING = "—"


def plus_minus(mean: float, half: float | None) -> tuple[str, str]:
    """Return mean and half width as text with the same decimals: the half width has two digits that count.

    >>> plus_minus(4.27163, 0.01234)
    ('4.272', '0.012')
    """
    if half is None or half <= 0 or not math.isfinite(half) or not math.isfinite(mean):
        return figure(mean), ""
    size = max(abs(mean), half)
    if not 1e-4 <= size < 1e7:
        power = math.floor(math.log10(size))
        left, right = plus_minus(mean / 10.0**power, half / 10.0**power)
        return f"{left}e{power:+d}", f"{right}e{power:+d}" if right else ""
    decimals = min(12, max(0, 1 - math.floor(math.log10(half))))
    return f"{mean:.{decimals}f}", f"{half:.{decimals}f}"


def plain(text: str) -> str:
    """Return a text on one line, without control characters."""
    return " ".join("".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text).split())


# --- LaTeX ------------------------------------------------------------------------------------------------------------


def latex(table: ResultTable, *, caption: str = "", label: str = "") -> str:
    """Return the table as a LaTeX float; it needs the package booktabs.

    Args:
        table: the table.
        caption: None of it is LaTeX: it is escaped; empty takes the study's question.
        label: of the float; empty takes the study's name.
    """
    heads = [r"experiment", *(["label"] if table.has_labels else [])]
    for place, column in enumerate(table.columns):
        heads.append(f"{latex_text(column.title)} ${_arrow(column.direction)}$")
        if table.has_references(place):
            heads.append("reference")
    left = 1 + table.has_labels
    lines = [
        f"% {plain(table.study)}, profile {plain(table.profile)}; needs \\usepackage{{booktabs}}",
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{latex_text(caption or table.question or table.study)}}}",
        f"  \\label{{tab:{_label(label or table.study)}}}",
        f"  \\begin{{tabular}}{{{'l' * left}{'r' * (len(heads) - left)}}}",
        r"    \toprule",
        "    " + " & ".join(heads) + r" \\",
    ]
    for group in table.groups:
        lines.append(r"    \midrule")
        if group.name:
            lines.append(f"    \\multicolumn{{{len(heads)}}}{{l}}{{\\emph{{{latex_text(group.name)}}}}} \\\\")
        lines += ["    " + " & ".join(_latex_cells(table, row)) + r" \\" for row in group.rows]
    lines += [r"    \bottomrule", r"  \end{tabular}"]
    lines += [f"  \\par\\smallskip\\footnotesize {latex_text(note)}" for note in notes(table)]
    lines += [
        f"  \\par\\footnotesize $^{{{_letter(place)}}}$ {latex_text(source)}"
        for place, source in enumerate(table.sources)
    ]
    return "\n".join([*lines, r"\end{table}", ""])


def latex_text(text: str) -> str:
    """Return a text that LaTeX prints as it is."""
    return "".join(_LATEX.get(character, character) for character in plain(text))


def _arrow(direction: str) -> str:
    return r"\downarrow" if direction == "lower" else r"\uparrow"


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9:.-]+", "-", text).strip("-") or "results"


def _latex_cells(table: ResultTable, row: Row) -> Iterator[str]:
    yield latex_text(_name(row))
    if table.has_labels:
        yield latex_text(row.label)
    for place, entry in enumerate(row.entries):
        yield "---" if entry is None else _latex_entry(entry)
        if table.has_references(place):
            yield ", ".join(_latex_reference(each, table.sources) for each in row.references[place])


def _latex_reference(reference: Reference, sources: Sequence[str]) -> str:
    number = reference.text(lambda value: _exponent(figure(value)))
    return f"${{{number}}}^{{{_letter(sources.index(reference.source))}}}$"


def _latex_entry(entry: Entry) -> str:
    mean, half = plus_minus(entry.mean, entry.half)
    number = _exponent(mean) + (rf" \pm {_exponent(half)}" if half else "")
    inside = rf"\mathbf{{{number}}}" if entry.best else number
    return f"${inside}$ ({entry.n})" if not entry.constant else f"${inside}$"


def _exponent(text: str) -> str:
    """Return a number for math mode: 1.2e-06 becomes a power of ten, thousands keep their comma tight."""
    mantissa, mark, power = text.partition("e")
    tight = mantissa.replace(",", "{,}")
    return rf"{tight} \times 10^{{{int(power)}}}" if mark and power.lstrip("+-").isdigit() else tight


# --- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(table: ResultTable) -> str:
    """Return the table as Markdown, one table a group."""
    heads = ["experiment", *(["label"] if table.has_labels else [])]
    for place, column in enumerate(table.columns):
        heads.append(f"{column.title} {'↓' if column.direction == 'lower' else '↑'}")
        if table.has_references(place):
            heads.append("reference")
    left = 1 + table.has_labels
    rule = "|" + "|".join(["---"] * left + ["--:"] * (len(heads) - left)) + "|"
    lines = []
    for group in table.groups:
        if group.name:
            lines += [f"**{markdown_text(group.name)}**{_question(group)}", ""]
        lines += ["| " + " | ".join(map(markdown_text, heads)) + " |", rule]
        lines += ["| " + " | ".join(_markdown_cells(table, row)) + " |" for row in group.rows]
        lines.append("")
    lines += [line for note in notes(table) for line in (markdown_text(note), "")]
    lines += [f"- ({_letter(place)}) {markdown_text(source)}" for place, source in enumerate(table.sources)]
    return "\n".join(lines).rstrip() + "\n"


def markdown_text(text: str) -> str:
    """Return a text that Markdown, and HTML inside it, shows as it is; code marks included."""
    return _MARKDOWN.sub(r"\\\1", plain(text))


def _question(group: Group) -> str:
    return f": {markdown_text(group.question)}" if group.question else ""


def _markdown_cells(table: ResultTable, row: Row) -> Iterator[str]:
    yield markdown_text(_name(row))
    if table.has_labels:
        yield markdown_text(row.label)
    for place, entry in enumerate(row.entries):
        yield NOTHING if entry is None else _markdown_entry(entry)
        if table.has_references(place):
            yield ", ".join(_reference(each, table.sources) for each in row.references[place])


def _markdown_entry(entry: Entry) -> str:
    mean, half = plus_minus(entry.mean, entry.half)
    text = f"{mean} ± {half}" if half else mean
    shown = f"**{text}**" if entry.best else text
    return shown if entry.constant else f"{shown} ({entry.n})"


def _reference(reference: Reference, sources: Sequence[str]) -> str:
    return f"{reference.text(figure)} ({_letter(sources.index(reference.source))})"


# --- CSV --------------------------------------------------------------------------------------------------------------


def csv_text(table: ResultTable) -> str:
    """Return one line for every arm and metric that has a number, in full precision."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _CSV, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for record in table.records():
        values, references = record["values"], record["references"]
        record |= {
            "best": "yes" if record["best"] else "",
            "seeds": " ".join(values),
            "values": " ".join(repr(value) for value in values.values()),
            "runs": " ".join(record["runs"]),
            "reference": "; ".join(
                repr(each["value"]) if each["band"] is None else "{!r} to {!r}".format(*each["band"])
                for each in references
            ),
            "reference_source": "; ".join(each["source"] for each in references),
        }
        writer.writerow(
            {name: spreadsheet_safe(record[name]) if name not in _NUMBERS else record[name] for name in _CSV}
        )
    return stream.getvalue()


_NUMBERS = frozenset({"n", "mean", "low", "high", "confidence", "values", "reference", "seeds"})


def spreadsheet_safe(value: object) -> object:
    """Keep a spreadsheet from running a name as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


# --- Both for reading -------------------------------------------------------------------------------------------------


def notes(table: ResultTable) -> list[str]:
    """Return what a reader must know of the numbers."""
    entries = [entry for group in table.groups for row in group.rows for entry in row.entries if entry is not None]
    levels = sorted({f"{100 * group.confidence:g} %" for group in table.groups})
    found = []
    if entries:
        text = f"Mean ± half the {' or '.join(levels)} Student interval over seeds (number of seeds)."
        if any(entry.constant for entry in entries):
            text += " A number without seeds depends on none."
        if any(entry.best for entry in entries):
            text += " Bold: better than every other arm of its group, as paired intervals show."
        elif len(entries) > 1:
            text += " Nothing is bold: in no group do paired intervals show one arm better than every other."
        found.append(text)
    if table.sources:
        found.append("References are numbers from elsewhere, not measured here:")
    return found


def _name(row: Row) -> str:
    return f"{row.experiment} ({row.role})" if row.role else row.experiment


def _letter(place: int) -> str:
    """Return a, b, ... z, aa, ab, ... for footnotes."""
    text = ""
    place += 1
    while place:
        place, rest = divmod(place - 1, 26)
        text = chr(ord("a") + rest) + text
    return text
