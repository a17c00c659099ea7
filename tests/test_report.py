"""report.html of runs that never were, `jaxnas watch` and the bar: what they show, and that they read only."""

import dataclasses
import html
import html.parser
import json
import re
import shutil

import jax
import numpy as np
import pytest

from jaxnas import data
from jaxnas.analysis import calibration
from jaxnas.app import cli, progress, report
from jaxnas.app.config import Config, complete
from jaxnas.app.main_job.finals import file_name
from jaxnas.app.report import mistakes, page
from jaxnas.driver.files import save_array

NASTY = ('<script>alert("1")</script>', "cats & dogs", "it's")
FOUND, HAND, RANDOM = (f"stem1 {w}:plain3x1 batch relu average rate=0.1 decay=0.0 augment=none dropout=0.0" for w in (8, 16, 32))
SECTIONS = (
    "What was tried",
    "What is taken for what",
    "The worst mistakes",
    "How far its probabilities can be trusted",
    "The network",
)


def examples(kind, shape=(6, 6, 1)):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, *shape)).astype(np.float32)
    y = {
        "classes": np.arange(120) % 3,
        "labels": rng.integers(0, 2, (120, 3)),
        "numbers": rng.normal(size=(120, 1)) * 5 + 100,
    }[kind]
    names = NASTY if kind != "numbers" else NASTY[:1]
    return data.split(jax.random.key(0), x, y, valid=None, kind=kind, names=names, name="<made>")


def outputs(dataset):
    """What a network says that is wrong now and then."""
    rng, y, n = np.random.default_rng(1), np.asarray(dataset.test.y), len(dataset.test.y)
    if dataset.target.kind == "numbers":
        return y + rng.normal(size=y.shape) * 0.5
    right = np.eye(3)[y] if dataset.target.kind == "classes" else 2.0 * y - 1
    return right + rng.normal(size=(n, 3))


def trial(arm, number, genotype, score, macs, stop=90, at=1.0):
    row = dict(arm=arm, number=number, member=number, slot=number, start=0, stop=stop, genotype=genotype, score=score)
    return row | dict(error=0.01, loss=0.5, params=macs // 20, macs=macs, seconds=1.5, waited=0.5, at=at)


def of_test(genotype, kind, score, macs):
    name = {"classes": "test_accuracy", "labels": "test_label_accuracy", "numbers": "test_rmse"}[kind]
    made = {"genotype": genotype, name: score, "test_examples": 24, "of_each_seed": [score, score + 0.01]}
    return made | {"test_r2": 0.5, "parameters": macs // 20, "multiply_adds": macs, "validation": score}


def against(value, same=False):
    verdict = "better" if value > 0.05 else "worse" if value < -0.05 else "level"
    return {"value": value, "low": value - 0.05, "high": value + 0.05, "probability": 0.5, "verdict": verdict, "same_network": same}


def run(directory, dataset, config=None, loss=True):
    """A finished run, without any network."""
    directory.mkdir()
    kind = dataset.target.kind
    config = complete(config or Config(minutes=2.0, data="mine & yours.npz"))
    (directory / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    (directory / "plan.json").write_text(json.dumps({"seconds": 120.0, "began": 0.5, "steps": 90}))
    rows = [trial("search", 0, FOUND, 0.6, 5_000, at=2.0), trial("search", 1, HAND, 0.5, 9_000, stop=30, at=4.0)]
    rows += [
        trial("search", 2, HAND, "-inf", 9_000, at=5.0),
        {"arm": "search", "ended": 3},
        trial("random", 0, RANDOM, 0.55, 20_000, at=9.0),
    ]
    (directory / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"arm": "random", "ended": 1}]))
    (directory / "finals").mkdir()
    save_array(directory / "finals" / f"{file_name(FOUND, 0)}-0.npy", outputs(dataset))
    (directory / "architecture.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><text>&lt;</text></svg>')
    result = {
        "found": of_test(FOUND, kind, 0.7, 5_000),
        "hand-made": of_test(HAND, kind, 0.8, 9_000),
        "gradient-boosting": {k: v for k, v in of_test("", kind, 0.6, 0).items() if "test_" in k},
        "kept": "found",
        "genotype": FOUND,
        "against": {"hand-made": against(-0.1 if loss else 0.1), "gradient-boosting": against(0.0)},
        "small": of_test(FOUND, kind, 0.7, 5_000),
        "verdict": "worse than the best hand-made network" if loss else "better than the best hand-made network",
    }
    (directory / "result.json").write_text(json.dumps(result))
    return result


class Reader(html.parser.HTMLParser):
    """What a browser would fetch, the text, and whether every tag is closed."""

    VOID = ("meta", "img", "br")

    def __init__(self):
        super().__init__()
        self.open, self.links, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        self.open += [tag] * (tag not in self.VOID)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "xlink:href")]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, words):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(words)


def read(directory):
    raw = (directory / "report.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(raw)
    assert reader.open == [] and all(link.startswith("data:") for link in reader.links)
    assert not re.search(r"https?://|@import|url\(", raw), "it needs nothing from elsewhere"
    return raw, " ".join(reader.words)


@pytest.fixture(scope="module", params=["classes", "labels", "numbers"])
def written(request, tmp_path_factory):
    directory, dataset = tmp_path_factory.mktemp("report") / "run", examples(request.param)
    result = run(directory, dataset)
    report.write(directory, dataset, result)
    return request.param, directory, dataset, result


def test_the_page_stands_alone_and_is_the_same_twice(written):
    _, directory, dataset, result = written
    before, words = read(directory)[0].encode(), read(directory)[1]
    report.write(directory, dataset, result)
    assert (directory / "report.html").read_bytes() == before
    assert not list(directory.glob("*.part"))
    assert words.index("Worse than the best hand-made network.") < words.index("What was tried")
    assert "jaxnas search --minutes 2.0 --data 'mine & yours.npz'\n" in words


def test_names_are_text(written):
    _, directory, *_ = written
    raw, words = read(directory)
    assert NASTY[0] not in raw and html.escape(NASTY[0]) in raw and NASTY[0] in words
    assert raw.count("<script>") == 1


def test_sections_are_there_where_they_have_something_to_say(written):
    kind, directory, *_ = written
    titles = re.findall("<h2>(.*?)</h2>", read(directory)[0])
    want = {
        "classes": list(SECTIONS),
        "labels": [SECTIONS[0], "Label by label", *SECTIONS[2:]],
        "numbers": [SECTIONS[0], "Predicted against true", SECTIONS[2], SECTIONS[4]],
    }[kind]
    assert titles == [*want, "Use it, and do it again"]


def test_a_loss_is_shown_as_a_loss(tmp_path):
    dataset = examples("classes")
    for loss in (True, False):
        directory = tmp_path / str(loss)
        report.write(directory, dataset, run(directory, dataset, loss=loss))
        raw, words = read(directory)
        assert ("a loss" in words) == loss and ('class="n bad"' in raw) == loss
        assert "gradient-boosting" in words and "level" in words and "diverged" in words


def test_rows_of_a_table_are_named_by_number(tmp_path):
    dataset = examples("classes", (4,))
    report.write(tmp_path / "run", dataset, run(tmp_path / "run", dataset))
    raw, words = read(tmp_path / "run")
    assert "image/png" not in raw and "The worst mistakes" in words


def test_mistakes_are_the_surest_and_images_are_as_they_were(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 5, 5, 3), dtype=np.uint8), np.arange(60) % 2
    dataset = data.split(jax.random.key(0), x, y, test=(x[:10], y[:10]), valid=0.3)
    pixels = mistakes._pixels(dataset, [3, 7])
    np.testing.assert_allclose(pixels, x[[3, 7]] / 255, atol=1e-6)
    logits = np.eye(2)[1 - y[:10]] * np.arange(1, 11)[:, None]  # all wrong, the last one the surest
    _, found, _ = mistakes._classes(dataset.target, logits, y[:10])
    assert [m.example for m in found] == list(range(9, -1, -1)) and found[0].truth == "1" and found[0].predicted.startswith("0, ")


def test_calibration():
    sure, right = np.array([0.55, 0.65, 0.95, 0.95]), np.array([True, False, True, True])
    assert calibration.reliability(sure, right).error == pytest.approx((0.45 + 0.65 + 2 * 0.05) / 4)
    assert calibration.reliability(np.ones(3), np.ones(3, bool)).error == 0


def test_importance_needs_enough_trials(tmp_path):
    dataset = examples("classes")
    result = run(tmp_path / "run", dataset)
    rng = np.random.default_rng(0)
    texts = [
        f"stem1 {w}:plain3x1 batch {act} average rate={rate} decay=0.0 augment=none dropout=0.0"
        for w in (8, 16)
        for act in ("relu", "silu")
        for rate in (0.05, 0.1, 0.2, 0.4)
    ]
    rows = [trial("search", i, text, 0.5 + 0.3 * ("silu" in text) + 0.01 * rng.normal(), 5_000) for i, text in enumerate(texts)]
    (tmp_path / "run" / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report.write(tmp_path / "run", dataset, result)
    _, words = read(tmp_path / "run")
    first = words.split("Which decisions mattered")[1].split("deviation between trees.")[1].split()[3]
    assert first.startswith("activation")


def test_a_supernets_run_has_a_smaller_page(tmp_path):
    dataset = examples("classes")
    run(tmp_path / "run", dataset, Config(strategy="darts"))
    for name in ("plan.json", "trials.jsonl", "finals"):
        path = tmp_path / "run" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (tmp_path / "run" / "curves.png").write_bytes(b"png")
    result = {
        "found": of_test("a", "classes", 0.7, 0),
        "random": of_test("b", "classes", 0.6, 0),
        "genotype": "a",
        "verdict": "better",
    }
    report.write(tmp_path / "run", dataset, result)
    raw, words = read(tmp_path / "run")
    assert re.findall("<h2>(.*?)</h2>", raw) == ["How it went", "The network", "Use it, and do it again"]
    assert "70.00" in words and "60.00" in words and "jaxnas search --space nasbench201 --strategy darts" in words


def test_ticks_and_counts():
    assert page.ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert page.ticks(900, 2e6, log=True) == [1e3, 1e4, 1e5, 1e6]
    assert [page.short(n).replace(page.SPACE, " ") for n in (None, 7, 7010, 350_528, 999_999, 2e9)] == [
        *("-", "7", "7.01 k", "351 k", "1 M", "2 G")
    ]


# --- watch, show, the bar ---------------------------------------------------------------------------------------------


def test_watch_a_finished_run(tmp_path, capsys):
    run(tmp_path / "run", examples("classes"))
    before = {p: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file()}
    assert cli.main(["watch", str(tmp_path / "run")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("search 0: 0.6000, best so far 0.6000 (about 118 s left)")
    assert lines[1].startswith("search 1: 0.5000 at 30 of 90 steps, best so far 0.6000 (about 116 s left)")
    assert lines[2].startswith("search 2: -inf, best so far 0.6000") and len(lines) == 6
    assert lines[4].startswith("final training") and lines[5] == "worse than the best hand-made network"
    assert {p: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file()} == before


def test_watch_follows_a_run_until_its_result(tmp_path):
    directory = tmp_path / "run"
    run(directory, examples("classes"))
    result, rows = (directory / "result.json").read_text(), (directory / "trials.jsonl").read_text().splitlines(keepends=True)
    (directory / "result.json").unlink()
    shutil.rmtree(directory / "finals")
    (directory / "trials.jsonl").write_text(rows[0] + rows[1][:40])  # the second is being written
    lines = progress.watch(directory, every=0.0)
    assert next(lines).startswith("search 0")
    (directory / "trials.jsonl").write_text("".join(rows[:2]))
    assert next(lines).startswith("search 1")
    (directory / "result.json").write_text(result)
    assert list(lines) == ["worse than the best hand-made network"]


def test_watch_a_supernets_log(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"steps": 300, "train_steps": 600}))
    (tmp_path / "log.jsonl").write_text(json.dumps({"phase": "darts", "step": 100, "seconds": 10.0, "loss": 1.5}) + "\n")
    (tmp_path / "result.json").write_text('{"verdict": "level"}')
    assert list(progress.watch(tmp_path)) == ["search, darts: step 100 of 300: loss 1.5 (about 20 s left)", "level"]


def test_what_is_no_trial_is_passed_over(tmp_path):
    lines = [json.dumps(trial("search", 0, FOUND, 0.5, 5_000)), "3", '{"arm": "search"}', '{"arm": "search", "ended": 1}', "{"]
    (tmp_path / "trials.jsonl").write_text("\n".join(lines))
    assert [row["score"] for row in progress.trials(tmp_path)] == [0.5]


def test_watch_what_is_no_run(tmp_path, capsys):
    for path, words in ((tmp_path / "none", "there is no run"), (tmp_path, "is not a run: it has no config.json")):
        assert cli.main(["watch", str(path)]) == 2
        assert words in capsys.readouterr().err


def test_ctrl_c_ends_a_watch(tmp_path, monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(progress.time, "sleep", interrupted)
    assert cli.main(["watch", str(tmp_path)]) == 130


def test_show_names_the_report_and_opens_it(tmp_path, capsys, monkeypatch):
    opened, dataset = [], examples("classes")
    monkeypatch.setattr("webbrowser.open", lambda uri: opened.append(uri) or True)
    report.write(tmp_path / "run", dataset, run(tmp_path / "run", dataset))
    assert cli.main(["show", str(tmp_path / "run")]) == 0
    assert f"report in {tmp_path / 'run' / 'report.html'}" in capsys.readouterr().out and opened == []
    assert cli.main(["show", str(tmp_path / "run"), "--open"]) == 0
    assert opened == [(tmp_path / "run" / "report.html").resolve().as_uri()]
    (tmp_path / "run" / "report.html").unlink()
    capsys.readouterr()
    assert cli.main(["show", str(tmp_path / "run"), "--open"]) == 2
    assert "has no report.html: make it with jaxnas resume" in capsys.readouterr().err


def test_the_bar_shows_itself_only_where_it_is_asked_for(tmp_path, capsys, monkeypatch):
    run(tmp_path / "run", examples("classes"))
    said = []
    with progress.bar(tmp_path / "run", Config(), said.append, shown=False) as say:
        say("a")
    assert capsys.readouterr().err == "" and said == ["a"]
    wait = progress.threading.Event.wait
    monkeypatch.setattr(
        progress.threading.Event, "wait", lambda self, timeout=None: wait(self, 0.01 if timeout == 1.0 else timeout)
    )
    with progress.bar(tmp_path / "run", Config(), said.append, shown=True) as say:
        say("b")
        progress.time.sleep(0.3)
    shown = capsys.readouterr().err
    assert said == ["a", "b"] and "9/180 s" in shown and "4 trials, best 0.6000" in shown
