"""What the documentation says in words holds: its options, fields and links exist, its tables are the code's."""

from __future__ import annotations

import re

import docs_commands as docs
import pytest
from docs_commands import ROOT, Command


@pytest.mark.parametrize("page", docs.PAGES)
def test_options_and_commands_in_prose_exist(page: str) -> None:
    """An option in a code span belongs to a command, or to a script or program that the page is about."""
    scripts = [ROOT / name for name in set(re.findall(r"experiments/[\w/]+\.py", docs.text(page)))]
    scripts += [path for path in (ROOT / page).parent.glob("*.py") if page.startswith("experiments/")]
    known = docs.options().union(*map(docs.script_options, scripts))
    for span in docs.spans(page):
        assert set(docs.OPTION.findall(span)) <= known, span
        words = span.split()
        if words[0] == "layerprof" and len(words) > 1:
            assert words[1] in docs.subcommands()
            assert len(words) == 2 or docs.parsed(tuple(words))
        if words[0] == "make":
            docs.OTHERS["make"](Command(page, tuple(words)))
        if words[0] == "python" and len(words) > 1:
            docs.OTHERS["python"](Command(page, tuple(words)))


@pytest.mark.parametrize("page", docs.PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Relative links, pictures and anchors are there, and so are files that are named from the root."""
    for link in docs.LINK.findall(docs.outside_blocks(page)):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in docs.anchors(target.resolve().relative_to(ROOT).as_posix()), link
    for name in re.findall(r"\b(?:docs|experiments|layerprof|hooks|tests)/[\w/.-]+\.\w+", docs.text(page)):
        assert (ROOT / name).exists() or (ROOT / page).parent.joinpath(name).exists(), name


def test_fields_of_a_run_exist() -> None:
    """`totals.x`, `layers[].x` and `ledger.x` on any page are in the records."""
    named = {field for page in docs.PAGES for span in docs.spans(page) for field in docs.FIELD.findall(span)}
    assert {root for root, _ in named} == {"totals", "ledger", "layers[]"}
    assert {field for field in named if not docs.has_field(*field)} == set()
    assert not docs.has_field("totals", ".wer.none_such")


def test_the_readme_names_every_command_and_page() -> None:
    """Whoever starts at the README finds every command in its table, and every page by a link."""
    rows = re.findall(r"^\| `layerprof (\w+)", docs.text("README.md"), re.MULTILINE)
    assert sorted(rows) == sorted(docs.subcommands())
    links = set(docs.LINK.findall(docs.text("README.md")))
    assert {page for page in docs.PAGES if page.startswith("docs/")} <= links


def test_messages_that_the_troubleshooting_names_are_ours() -> None:
    """Who searches the page for a message finds it: what stands there in quotes is text of the code."""
    lines = docs.text("docs/troubleshooting.md").splitlines()
    quoted = [words for line in lines if line.startswith("|") for words in re.findall(r'"([^"]+)"', line.split("|")[1])]
    assert len(quoted) > 5
    code = docs.code()
    assert [words for words in quoted if words not in code] == []


@pytest.mark.parametrize(("page", "heading"), [("docs/energy.md", "| flag |"), ("docs/energy.md", "| source |")])
def test_flags_and_sources_are_those_of_the_code(page: str, heading: str) -> None:
    """What a reader looks up in these tables is written in the code as it stands there."""
    table = docs.text(page).split(f"\n{heading}", 1)[1].split("\n\n", 1)[0]
    names = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(names) > 5
    code = docs.code()
    assert [name for name in names if f'"{name}"' not in code] == []


def test_a_page_answers_each_question() -> None:
    """First run, own model, ledger, energy, FLOPs, sweeps, clusters, traces, hooks, formats, datasets, trouble."""
    titles = {page: docs.text(page).splitlines()[0].removeprefix("# ") for page in docs.PAGES}
    asked = {
        "docs/first-run.md": "First run",
        "docs/models.md": "Your own model",
        "docs/reading.md": "Reading the ledger",
        "docs/energy.md": "Energy",
        "docs/flops.md": "FLOPs",
        "docs/sweeps.md": "Sweeps",
        "docs/cluster.md": "Sweeps on a cluster",
        "docs/traces.md": "Traces, Perfetto and TensorBoard",
        "docs/hooks.md": "Adding a hook",
        "docs/formats.md": "Adding a report format",
        "docs/datasets.md": "Datasets, and your own samples",
        "docs/troubleshooting.md": "Troubleshooting",
    }
    assert {page: titles[page][: len(title)] for page, title in asked.items()} == asked
