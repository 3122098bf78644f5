"""The results as a page for people: the bars, then every case with every side, won or lost."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from benchmarks.speed import figures, sides, starts
from benchmarks.speed.blocking import HANDLER_SECONDS, INTERVAL_SECONDS
from benchmarks.speed.figures import Bar, Results, Spread
from benchmarks.speed.memory import FEW, MANY

_MEANWHILE = {"/sleep": "sleeps (`time.sleep`)", "/spin": "spins (pure Python)"}


def page(results: Results) -> str:
    lines = [
        "# Speed, beside the limit and the peers",
        "",
        *prose(
            f"Written by `make bench` on {results['date']}, all of it in one run:",
            f"{results['machine']}; CPython {results['python']}; {results['wrk']}. Each server has one",
            "core, with all of its processes, and whoever asks has another. Every side is started anew",
            f"in each round and has its turn; there were {results['rounds']}. Figures are medians of the",
            "rounds, with the lowest and the highest in brackets; ratios are taken within a round. The",
            "times are of this machine: their ratios are what counts.",
        ),
    ]
    for part in (bars, summary, requests, ping, cold_starts, memory, versions):
        lines += part(results)
    return "\n".join([*lines, ""])


def bars(results: Results) -> list[str]:
    """What was asked of this project, and what it reached."""
    rows = []
    for bar in figures.BARS:
        figure = bar.figure(results)
        if figure is None:
            rows.append([bar.title, asked(bar), "not measured", ""])
            continue
        verdict = "met" if bar.met(figure) else f"**missed by {bar.missed_by(figure):.0%}**"
        rows.append([bar.title, asked(bar), spread(figure, significant), verdict])
    return [*heading("What was asked"), *table(["", "asked", "reached", ""], rows)]


def asked(bar: Bar) -> str:
    return f"{'>=' if bar.at_least else '<='} {bar.asked:g} {bar.unit}"


def summary(results: Results) -> list[str]:
    """Everything at a glance: requests a second over the limit's."""
    if "throughput" not in results:
        return []
    compared = [side for side in results["sides"] if side != sides.LIMIT]
    rows = []
    for case in results["cases"]:
        row, name = [case["title"]], case["name"]
        limit = figures.of_case(results, name, sides.LIMIT)
        for side in compared:
            share = figures.ratio(figures.of_case(results, name, side), limit)
            why = results["missing"][side].get(name) or figures.failure(results, name, side)
            row.append(significant(share.median) if share else "n/a" if why else "")
        rows.append(row)
    return [
        *heading("Requests a second, over the limit's"),
        *prose(
            "The limit is an ASGI function under uvicorn, uvloop and httptools that reads the body and",
            "sends an answer that lies ready, so with large bodies nobody who looks into them comes near",
            "it.",
        ),
        "",
        *table(["", *compared], rows),
    ]


def requests(results: Results) -> list[str]:
    """A table a case."""
    if "throughput" not in results:
        return []
    idle = max(number["idle"] for number in results["throughput"])
    lines = [
        *heading("Requests, case by case"),
        *prose(
            f"{results['seconds']} s of load for each side, case and round, from one thread of wrk; 10 MB",
            "bodies from a client that sends one after the other. Each side but the limit validates the",
            "same types, and was measured only once it had answered rightly and refused a wrong type.",
            "Logs go to a file on every side; who logs each request by default does. All servers of a",
            f"round stay up: together, when nobody was asked anything, they used {idle:.1%} of the core at",
            "most.",
        ),
    ]
    for case in results["cases"]:
        rows, name = [], case["name"]
        limit, ours = (figures.of_case(results, name, side) for side in (sides.LIMIT, sides.OURS))
        remarks: dict[str, int] = {}
        for side in results["sides"]:
            rate = figures.of_case(results, name, side)
            why = results["missing"][side].get(name) or figures.failure(results, name, side)
            if rate is None and why is None:
                continue
            remark = why or results["notes"][side].get(name)
            mark = f" [{remarks.setdefault(remark, len(remarks) + 1)}]" if remark else ""
            if rate is None:
                rows.append([side + mark, "n/a", *[""] * 4])
                continue
            p50, p99 = (figures.of_case(results, name, side, key) for key in ("p50", "p99"))
            shares = [figures.ratio(rate, limit), figures.ratio(ours, rate)]
            rows.append(
                [side + mark, spread(rate, significant)]
                + [spread(share, significant) if share else "" for share in shares]
                + [spread(each, milliseconds) if each else "" for each in (p50, p99)]
            )
        head = ["", "requests/s", "over the limit's", f"{sides.OURS} over it", "p50, ms"]
        head.append("slowest, ms" if case["large"] else "p99, ms")
        title = case["title"]
        lines += ["", f"### {title[0].upper()}{title[1:]}", "", *table(head, rows)]
        lines += ["", *(f"[{mark}] {remark}." for remark, mark in remarks.items())] if remarks else []
    return lines


def ping(results: Results) -> list[str]:
    if "ping" not in results:
        return []
    rows = []
    for path, meanwhile in _MEANWHILE.items():
        for side, rounds in results["ping"][path].items():
            row = [meanwhile, side]
            for way in ("kept", "new"):
                found = [Spread(tuple(each[way][key] for each in rounds)) for key in ("p50", "p99", "max")]
                row += [spread(each, milliseconds) for each in found]
            rows.append(row)
    head = ["the handler", "", *(f"{way}: {key}" for way in ("kept", "new") for key in ("p50", "p99", "max"))]
    return [
        *heading("`/ping` while a handler blocks"),
        *prose(
            f"Milliseconds. An `async def` handler blocks for {HANDLER_SECONDS:g} s; meanwhile a ping is",
            f"due every {INTERVAL_SECONDS * 1e3:g} ms on a kept connection and on a new one, and its time",
            "counts from the moment when it was due.",
        ),
        "",
        *table(head, rows),
    ]


def cold_starts(results: Results) -> list[str]:
    if "starts" not in results:
        return []
    rows = []
    for way, its in results["starts"].items():
        theirs = figures.of_start(results, way, sides.VENDOR, "200")
        for side in its:
            row = [way, side]
            for status in ("204", "200"):
                found = figures.of_start(results, way, side, status)
                over = figures.ratio(found, theirs)
                row.append(spread(found, milliseconds) if found else "never")
                row.append(spread(over, significant) if over else "")
            rows.append(row)
    head = ["", "", "first 204, ms", "over the vendor's 200", "first 200, ms", "over the vendor's"]
    return [
        *heading("Cold starts"),
        *prose(
            "From before the process is started to the first answer of `/ping`. This project and the",
            f"vendor's worker serve the same artifact of the vendor's `flash build`. `{starts.UNPACKED}`:",
            "from a directory where it lies unpacked, and compiled by an earlier start.",
            f"`{starts.PACKED}`: into an empty directory; this project unpacks it by itself, and",
            "for the vendor's worker `tar` does before it starts. The vendor's worker and FastAPI answer",
            "nothing before they can serve, so they have no 204. All packages were compiled when they",
            "were installed.",
        ),
        "",
        *table(head, rows),
    ]


def memory(results: Results) -> list[str]:
    if "memory" not in results:
        return []
    rows = [
        [side]
        + [
            spread(found, megabytes) if (found := figures.of_memory(results, side, key)) else ""
            for key in (str(FEW), str(MANY), "each")
        ]
        for side in results["memory"]
    ]
    return [
        *heading("Memory of further workers"),
        *prose(
            "MB (a million bytes) of PSS of all processes together, after some requests; the peers with",
            f"`uvicorn --workers`. Each further one: the total of {MANY} less that of {FEW}, by",
            f"{MANY - FEW}.",
        ),
        "",
        *table(["", f"{FEW} workers", f"{MANY} workers", "each further one"], rows),
    ]


def versions(results: Results) -> list[str]:
    rows = [
        [name, ", ".join(f"{package} {version}" for package, version in its.items())]
        for name, its in results["versions"].items()
    ]
    return [*heading("Versions"), *table(["environment", ""], rows)]


def heading(text: str) -> list[str]:
    return ["", f"## {text}", ""]


def prose(*parts: str) -> list[str]:
    return textwrap.wrap(" ".join(parts), 110, break_long_words=False, break_on_hyphens=False)


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    first, *others = (
        "|" + "|".join(f" {cell} " if cell else " " for cell in row) + "|" for row in (head, *rows)
    )
    return [first, "|" + "---|" * len(head), *others]


def spread(figure: Spread, write: Callable[[float], str]) -> str:
    if len(figure.values) < 2:
        return write(figure.median)
    return f"{write(figure.median)} ({write(figure.low)} to {write(figure.high)})"


def significant(value: float) -> str:
    """Three digits that count: 31,400, 3.52, 0.0179."""
    rounded = float(f"{value:.3g}")
    digits = 0 if rounded == 0 else max(0, 2 - int(f"{rounded:e}".partition("e")[2]))
    return f"{rounded:,.{digits}f}"


def milliseconds(seconds: float) -> str:
    return significant(seconds * 1e3)


def megabytes(count: float) -> str:
    return f"{count / 1e6:.1f}"
