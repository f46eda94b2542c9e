"""The benchmarks run with tiny settings. No test here measures time. Only installed peers take part."""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from environment import skip_or_fail

ROOT = Path(__file__).parent.parent.parent


def import_benchmark(name: str) -> Any:
    return importlib.import_module(f"benchmarks.{name}")


@pytest.fixture(autouse=True)
def import_afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(ROOT))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for results, apart from the published ones."""
    measuring = import_benchmark("measuring")
    monkeypatch.setattr(measuring, "RESULTS", tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, module: ModuleType, *arguments: str) -> None:
    """As from the command line; what it switches off is switched on again."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    with warnings.catch_warnings():
        try:
            module.main()
        finally:
            logging.disable(logging.NOTSET)


@pytest.mark.parametrize("arguments", [(), ("--cold",), ("--algorithm", "EdDSA", "Starlette")], ids=" ".join)
def test_requests_in_process_are_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
):
    monkeypatch.setattr(import_benchmark("contestants"), "COLD_TOKENS", 3)
    run(monkeypatch, import_benchmark("in_process"), "--rounds", "1", *arguments)
    table = capsys.readouterr().out
    assert "| Starlette + scopeguard " in table
    assert "| Starlette + PyJWT by hand " in table


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    peers = import_benchmark("peers")
    absent = next(peer for peer in peers.import_all() if peer.NAME == "Flask + PyJWT by hand")
    monkeypatch.setattr(absent, "NEEDS", ("flask", "there-is-no-such-thing"))
    taking_part, why = import_benchmark("contestants").all_contestants("RS256")
    assert absent.NAME not in [each.name for each in taking_part]
    assert why[absent.NAME] == "not installed: there-is-no-such-thing"


def test_peer_has_a_description_and_requirements():
    bare = {each.name: each for each in import_benchmark("contestants").OURS}
    for peer in import_benchmark("peers").import_all():
        assert peer.NAME.startswith(peer.BASE.partition(",")[0])
        assert peer.NEEDS
        assert callable(peer.app)
        assert bare[peer.BASE].wsgi == getattr(peer, "WSGI", False)


@pytest.mark.parametrize(
    "what",
    ["without the scope", "expired", "for another audience", "of another issuer", "signed by a stranger"],
)
def test_contestant_that_accepts_a_bad_token_is_not_measured(what: str):
    """A contestant that refuses all but one kind of bad token."""
    in_process, material = import_benchmark("in_process"), import_benchmark("material").Material("ES256")
    bad = material.bad_tokens()
    material.bad_tokens = lambda **_: bad
    refused = {f"Bearer {token}" for kind, token in bad.items() if kind != what}

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("403 Forbidden" if environ["HTTP_AUTHORIZATION"] in refused else "200 OK", [])
        return [b""]

    contestant = import_benchmark("contestants").Contestant("one", "one", lambda material: app, wsgi=True)
    with pytest.raises(SystemExit, match=f"one: a token {what} was answered 200"):
        in_process.examine(contestant, in_process.Driver(contestant, app, None), material)


def test_contestant_that_refuses_a_valid_token_is_not_measured():
    in_process, material = import_benchmark("in_process"), import_benchmark("material").Material("ES256")

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("403 Forbidden", [])
        return [b""]

    contestant = import_benchmark("contestants").Contestant("one", "one", lambda material: app, wsgi=True)
    with pytest.raises(SystemExit, match="one: a good token was refused"):
        in_process.examine(contestant, in_process.Driver(contestant, app, None), material)


def test_only_bare_contestants_may_accept_bad_tokens():
    excused = {each.name for each in import_benchmark("contestants").OURS if not each.guards}
    bare = {each.base for each in import_benchmark("contestants").OURS}
    alone = {f"{name}, digest alone" for name in ("raw ASGI", "Starlette", "FastAPI")}
    assert excused == bare | alone | {"Starlette, signature alone"}


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_cold_judgements_are_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], algorithm: str
):
    monkeypatch.setattr(import_benchmark("contestants"), "COLD_TOKENS", 3)
    run(monkeypatch, import_benchmark("cold"), "--rounds", "1", "--algorithm", algorithm)
    table = capsys.readouterr().out
    for name in ("cryptography, one verify", "scopeguard", "scopeguard, which remembers it", "PyJWT"):
        assert f"| {name} " in table


def test_library_that_accepts_a_forged_token_is_not_measured():
    material = import_benchmark("material").Material("ES256")
    with pytest.raises(SystemExit, match="careless: a token expired was accepted"):
        import_benchmark("cold").examine("careless", lambda token: token, material)


def test_cold_tokens_are_more_than_any_cache_holds():
    contestants = import_benchmark("contestants")
    assert contestants.COLD["token_cache"].max_entries < contestants.COLD_TOKENS / 2


@pytest.mark.timeout(240)  # servers start, and a machine may be busy
@pytest.mark.parametrize(
    ("server", "base"), [("uvicorn", "Starlette"), ("granian", "Starlette"), ("gunicorn", "Flask")]
)
def test_contestants_in_one_server_are_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: str, base: str
):
    if shutil.which("wrk") is None:
        skip_or_fail("no wrk (on Debian: apt install wrk)")
    monkeypatch.setenv("BENCH_BLOCK", "30")
    names = [base, f"{base} + scopeguard", f"{base} + scopeguard, fast"]
    run(monkeypatch, import_benchmark("sockets"), "--seconds", "1", "--server", server, *names)
    table = capsys.readouterr().out
    for load in ("known tokens", "new tokens", "95 % known and 5 % new tokens"):
        assert f"## {server}, {load}, RS256" in table
    shown = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert [shown.count(name) for name in names] == [3, 3, 3]


def blocks_of(*forget: list[Any]) -> Any:
    """Turns for as many contestants, whose caches these functions empty."""
    return import_benchmark("blocks").Blocks(forget)


def test_contestants_take_turns_in_blocks_and_in_a_new_order_each_cycle():
    module, turns = import_benchmark("blocks"), blocks_of([], [], [])
    order = [[turns.next() for _ in range(module.BLOCK)] for _ in range(9)]
    assert all(len(set(block)) == 1 for block in order)
    assert [block[0] for block in order] == [0, 1, 2, 1, 2, 0, 2, 0, 1]
    # Only the cycles after the first two are counted.
    assert [list(each) for each in turns.counted] == [[2], [2], [2]]
    assert all(processor > 0 and real > 0 for each in turns.counted for processor, real in each.values())


def test_caches_are_emptied_at_the_beginning_of_each_block():
    cleared: list[str] = []
    module, turns = import_benchmark("blocks"), blocks_of([lambda: cleared.append("a")], [lambda: cleared.append("b")])
    for number in range(3 * module.BLOCK):
        turns.next()
        assert len(cleared) == number // module.BLOCK + 1
    assert cleared == ["a", "b", "b"]


def test_no_token_of_the_new_ones_comes_twice_in_a_block():
    sockets, material = import_benchmark("sockets"), import_benchmark("material").Material("EdDSA")
    new = sockets.tokens_of("new", material)
    assert len(set(new)) == len(new) > import_benchmark("blocks").BLOCK
    mixed = sockets.tokens_of("mixed", material)
    counts = [mixed.count(token) for token in mixed[:100]]
    assert sorted(set(counts)) == [1, len(mixed) * 95 // 100 // sockets.KNOWN_TOKENS]
    assert counts.count(1) == 5
    # Each known token comes several times before a block is counted.
    begun = mixed[: import_benchmark("blocks").NOT_COUNTED]
    assert min(begun.count(token) for token in set(mixed) - set(new) if mixed.count(token) > 1) >= 3


def test_results_are_ratios_within_a_cycle_that_all_completed():
    module = import_benchmark("sockets")
    contestant = import_benchmark("contestants").Contestant
    taking_part = [contestant("bare", "bare", lambda material: None), contestant("one", "bare", lambda material: None)]
    found = [{2: (10.0, 20.0), 3: (20.0, 40.0), 4: (30.0, 60.0)}, {2: (20.0, 30.0), 3: (80.0, 90.0)}]
    row = module.describe(taking_part, found)["one"]
    assert row["ratio"] == (0.5 + 0.25) / 2
    assert row["added"] == (10 + 60) / 2
    assert row["processor"] == pytest.approx(50e-6)
    with pytest.raises(SystemExit, match="more --seconds"):
        module.describe(taking_part, [{}, {}])


def test_figures_of_servers_have_bounds_and_the_best_peer():
    module = import_benchmark("sockets")
    rows = {
        name: {"ratio": ratio, "added": added, "peer": "PyJWT" in name, "base": "Starlette"}
        for name, ratio, added in (
            ("Starlette", 1.0, 0.0), ("Starlette + scopeguard", 0.5, 13.0), ("Starlette + scopeguard, fast", 0.6, 11.0),
            ("Starlette + PyJWT by hand", 0.3, 90.0),
        )
    }  # fmt: skip
    (ours, fast) = module.figures("uvicorn", "new", rows)
    assert (ours["value"], ours["must"], ours["peer"]) == (0.5, ">= 0.45", 0.3)
    assert (fast["value"], fast["must"], fast["peer_name"]) == (0.6, ">= 0.5", "Starlette + PyJWT by hand")
    (ours, fast) = module.figures("uvicorn", "mixed", rows)
    assert (ours["value"], ours["must"], ours["unit"], ours["peer"]) == (13.0, "<= 14", "µs", 90.0)


def test_nothing_is_pinned_with_a_single_core(monkeypatch: pytest.MonkeyPatch):
    cores = import_benchmark("sockets").Cores
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert cores.choose() == cores(server=None, generator=None)
    assert cores.pin(None, ["wrk"]) == ["wrk"]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 4}, raising=False)
    assert cores.choose() == cores(server=3, generator=5)
    assert cores.pin(3, ["wrk"])[-2:] == ["3", "wrk"]


def test_command_runs_on_the_core_that_it_is_pinned_to():
    cores = import_benchmark("sockets").Cores
    core = cores.choose().generator
    script = "import os, sys; print(*os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else print('all')"
    command = cores.pin(core, [sys.executable, "-c", script])
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert core is None or found == str(core)


def test_missing_wrk_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    run(monkeypatch, import_benchmark("sockets"))
    assert capsys.readouterr().out == "Not measured over sockets: there is no wrk (on Debian: apt install wrk).\n"


def figure(value: float, must: str, **more: Any) -> dict[str, Any]:
    return {"figure": f"{value} {must}", "value": value, "must": must, "unit": "", **more}


def test_one_table_has_all_figures_and_results_are_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], results: Path
):
    module = import_benchmark("run")
    found = {
        "in_process": {"figures": [figure(7, ""), figure(1.2, "<= 1.25", peer=10.5, peer_name="somebody")]},
        "cold": {"figures": [figure(0.5, ">= 0.93")], "absent": {"python-jose": "not installed"}},
    }
    monkeypatch.setattr(module, "run_apart", lambda part, *, quick: found[part])
    run(monkeypatch, module, "in_process", "cold")
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[2:] == [
        ["7", "-", "", "7", ""],
        ["1.2 <= 1.25", "10.5 (somebody)", "<= 1.25", "1.2", "yes"],
        ["0.5 >= 0.93", "-", ">= 0.93", "0.5", "NO"],
    ]
    assert lines[-1] == "python-jose: not installed"
    assert {path.name for path in results.iterdir()} == {"in_process.json", "cold.json"}


def test_a_quick_run_writes_nothing_and_a_part_that_fails_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], results: Path
):
    module = import_benchmark("run")
    monkeypatch.setattr(module, "run_apart", lambda part, *, quick: {"figures": []} if part == "cold" else None)
    with pytest.raises(SystemExit, match="failed: in_process"):
        run(monkeypatch, module, "--quick", "in_process", "cold")
    assert list(results.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "must", "expected"),
    [
        (1.25, "<= 1.25", True),
        (1.26, "<= 1.25", False),
        (0.93, ">= 0.93", True),
        (0.92, ">= 0.93", False),
        (1, "1", True),
        (2, "1", False),
    ],
)
def test_a_bound_is_reached_or_not(value: float, must: str, expected: bool):
    assert import_benchmark("run").satisfies(value, must) is expected


def test_a_bound_that_is_none_is_not_guessed_at():
    with pytest.raises(ValueError, match="a bound must be"):
        import_benchmark("run").satisfies(1, "about 1")


def row(ratio: float, base: str, *, peer: bool = False) -> dict[str, Any]:
    spread = {"low": ratio * 0.9, "high": ratio * 1.1, "smallest": 1e-5, "median": 2e-5, "processor": 5e-5}
    return {"base": base, "peer": peer, "ratio": ratio, **spread}


def requests_of(*bases: str, ratio: float) -> dict[str, Any]:
    rows = {base: row(1.0, base) for base in bases}
    for base in bases:
        framework = base.partition(",")[0]
        rows[f"{framework} + scopeguard"] = row(ratio, base)
        rows[f"{framework} + somebody"] = row(ratio * 3, base, peer=True)
    return rows


def results_of_all_parts() -> dict[str, dict[str, Any]]:
    in_process = requests_of("Starlette", "FastAPI, empty dependency", "Flask", ratio=1.2)
    loads = dict.fromkeys(("known", "new", "mixed"), requests_of("Starlette", ratio=0.3))
    of_flask = dict.fromkeys(("known", "new", "mixed"), requests_of("Flask", ratio=0.3))
    judged = {"cryptography, one verify": row(1.0, ""), "scopeguard": row(1.6, ""), "somebody": row(3.0, "", peer=True)}
    kinds = ("token of {} KB, warm", "token of {} KB, cold", "{} scopes, warm", "{} scopes, cold", "{} keys, cold")
    rules = ("literal, {:,} rules", "parameters, {:,} rules")
    counts = (10, 1000)
    return {
        "in_process": {"warm_RS256": in_process, "cold_RS256": in_process},
        "cold": dict.fromkeys(("RS256", "ES256", "EdDSA"), judged),
        "sockets": {"uvicorn": loads, "granian": loads, "gunicorn": of_flask},
        "scaling": {
            "times": {kind.format(count): {"smallest": count * 1e-6} for kind in kinds for count in counts},
            "rules": {kind.format(count): 1e-6 for kind in rules for count in counts},
            "remembered": {str(count): {"ready": 1e-6, "packed": 9e-6, "pause": 1e-3} for count in counts},
        },
    }


@pytest.mark.timeout(240)  # the first drawing reads all fonts of the machine
def test_drawing_contains_all_results_and_is_deterministic(results: Path):
    plots, measuring = import_benchmark("plots"), import_benchmark("measuring")
    for part, found in results_of_all_parts().items():
        measuring.keep(part, found)
    plots.main()
    drawn = {path.name: path.read_bytes() for path in results.iterdir() if path.suffix != ".json"}
    names = ["requests_warm", "requests_cold", "cold_judgement", "sockets", "scaling"]
    assert drawn.keys() == {f"{name}.svg" for name in names}
    plots.main()
    assert {path.name: path.read_bytes() for path in results.iterdir() if path.suffix != ".json"} == drawn


def test_results_that_are_missing_are_not_drawn(results: Path, capsys: pytest.CaptureFixture[str]):
    plots, measuring = import_benchmark("plots"), import_benchmark("measuring")
    measuring.keep("sockets", {"absent": "there is no wrk", "figures": []})
    plots.main()
    assert "scaling: not run yet" in capsys.readouterr().out
    assert [path.name for path in results.iterdir()] == ["sockets.json"]
