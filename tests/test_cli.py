"""The command line: what a person gets wrong is one line and exit code 2; what a run promises is in its directory."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import base, data, nets, plot, spaces
from jaxnas.app import cli, export, progress, search
from jaxnas.app.config import read_config
from jaxnas.ask_tell import random_search
from jaxnas.driver import checkpoint, files, fingerprint, journal

ROOT = pathlib.Path(__file__).resolve().parents[1]
SMALLEST = [
    "--strategy",
    "darts",
    "--strategy.order",
    "first",
    "--steps",
    "4",
    "--train-steps",
    "4",
    "--channels",
    "2",
    "--batch",
    "16",
]
BENCH = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"


def jaxnas(*arguments, check=0, **options):
    """A run of the command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "jaxnas.app.cli", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        **options,
    )
    assert done.returncode == check, done.stderr
    return done


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """refused(*arguments): exit code 2 and one line, which is returned; nothing printed, and no file made."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        before = sorted(tmp_path.rglob("*"))
        assert cli.main([str(a) for a in arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(r"jaxnas: [^\n]+\n", err), err
        assert "Traceback" not in err
        assert sorted(tmp_path.rglob("*")) == before, "a failed start left something behind"
        return err

    return run


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["serach"],
            "unknown command 'serach': choose one of search, resume, show, watch, predict, export, bench, tabulate, rank, runs",
        ),
        (["search", "--mesh", "batch=2"], "--mesh is for searches that are one program, and macro trains network by network"),
        (["search", "--strategy", "darts", "--mesh", "seeds=2"], "--mesh seeds=2: give the sizes of axes, such as seed=2,batch=4"),
        (["search", "--strategy", "darts", "--mesh", "batch=4"], "a mesh of batch=4 needs 4 devices, and there are 2"),
        (
            ["search", "--strategy", "darts", "--mesh", "batch=2", "--batch", "7"],
            "7 examples of a batch cannot be split over the 2 parts",
        ),
        (["search", "--strategy", "darts", "--process", "0"], "--process is for several processes: add --distributed"),
        (["search", "--strategy", "darts", "--distributed"], "(--coordinator, --processes, --process missing): give --coordinator"),
        (
            ["search", "--strategy", "darts", "--distributed", "--coordinator=a:1", "--processes=2", "--process=2"],
            "--process 2 of --processes 2: they are counted from 0",
        ),
        (["search", "--space", "nasbench"], "unknown space 'nasbench': did you mean nasbench201? See jaxnas list"),
        (["search", "--strategy", "dart"], "unknown strategy 'dart': did you mean darts or "),
        (["search", "--strategy", "darts", "--augment", "flip"], "unknown augment 'flip': choose one of none, crop, crop+flip"),
        (["search", "--data", "digit"], "unknown data 'digit': choose one of digits, FILE.npz, X.npy,Y.npy, FILE.csv"),
        (["search", "--evaluator", "guess"], "unknown evaluator 'guess': choose one of scratch, supernet, zero-cost"),
        (
            ["search", "--strategy", "ofa", "--space", "nasbench201"],
            "ofa needs an elastic space: search nasbench201 with --strategy aging",
        ),
        (["search", "--space", "darts-rnn"], "darts-rnn reads text: give --data file.txt, not digits"),
        (["search", "--data", "mine.txt"], "macro reads images, time series or rows of a table, not text"),
        (["search", "--seeds", "2"], "--seeds is for other spaces, and this searches macro: leave it out"),
        (["search", "--strategy", "darts", "--minutes", "2"], "--minutes is for the macro space, and this searches nasbench201"),
        (["search", "--limit", "latency=2"], "--limit latency=2: write params=200k, macs=5M, latency=0.2ms"),
        (["search", "--space", "macro", "--strategy", "darts"], "darts needs a net that mixes operations"),
        (["search", "--strategy", "portfolio", "--space", "nasbench201"], "portfolio needs hand-made networks"),
        (["search", "--config", "none.toml"], "none.toml cannot be read"),
        (["search", "--data", "none.npz"], "none.npz: there is no such file"),
        (["search", "--stepz", "3"], "unknown flag --stepz: did you mean --steps?"),
        (["search", "--qqqqqqq=3"], "unknown flag --qqqqqqq: see jaxnas search --help"),
        (["search", "--steps", "many"], "many"),
        (["search", "--steps"], "steps"),
        (["search", "--steps", "0"], "--steps must be a positive integer, not 0"),
        (["search", "--train-steps", "-1"], "--train-steps must be a positive integer, not -1"),
        (["search", "--seed", "-1"], "seed must be an integer from 0 to 2**63 - 1"),
        (["search", "--seed", str(2**64)], "seed must be an integer from 0 to 2**63 - 1"),
        (["search", "--learning-rate", "nan"], "--learning-rate must be a positive number, not nan"),
        (["search", "--strategy", "darts", "--batch", "5000"], "a batch of 5000 from"),
        (["resume"], "Missing from jaxnas resume: STR The run directory. (required): see jaxnas resume --help"),
        (["search", "--out", ""], "--out is empty: give a value, or leave it out"),
        (["search", "--out="], "--out is empty"),
        (["search", "--data", " "], "--data is empty"),
        (["resume", ""], "what to resume is empty"),
        (["show", ""], "what to show is empty"),
        (["watch", ""], "what to watch is empty"),
        (["predict", "", "x.npy"], "what to predict is empty"),
        (["bench", "--tables"], "--tables has no value: give at least one table"),
        (["bench", "--tables", "--seed", "1"], "--tables has no value"),
        (["bench", "--algorithms"], "--algorithms has no value: give at least one algorithm"),
        (["bench", "--out", ""], "--out is empty"),
        (["search", "--use"], "--use has no value: give at least one file"),
        (["search", "--kind", "x"], "invalid choice 'x' for argument '--kind'"),
        (["resume", "nowhere"], "nowhere is not a run: it has no config.json"),
        (["resume", "."], "is not a run: it has no config.json"),
        (["show", "."], "is not a run: it has no config.json"),
        (["show", "runs/one"], "there is no run runs/one: give a run directory or a genotype"),
        (["show", "DARTS_V3"], "DARTS_V3"),
        (["show", "|conv~0|+|none~0|none~1|+|none~0|none~1|none~2|"], "conv"),
        (["show", BENCH[:-3]], ""),
        (["show", "Genotype(normal=[('skip_connect', 7)])"], "genotype"),
        (["show", "DARTS_V2", "--out", "x.gif"], "--out must end in .svg or .png"),
        (["show", "DARTS_V2", "--out", "no/such/x.svg"], "cannot write no/such/x.svg"),
        (["rank", "--proxy", "synflaw"], "unknown proxy synflaw: choose of params, flops, "),
        (["rank", "--space", "nasbench"], "unknown space 'nasbench'"),
        (["rank", "--table", "nas-bench-graph:cora"], "the rows of nas-bench-graph:cora are not of nasbench201"),
        (["rank", "--architectures", "1"], "at least two architectures"),
        (["rank", "--batch", "1"], "two examples a batch"),
        (["rank", "--architectures", "6"], "the top 10 of 6 architectures: give a k (--top) in 1 to 6"),
        (["rank", "--top", "0"], "--top must be a positive integer, not 0"),
        (["rank", "--proxy"], "give at least one proxy"),
        (["rank", "--seed", str(2**64)], "seed must be an integer from 0 to 2**63 - 1"),
        (["rank", "--seed", "-1"], "seed must be an integer from 0 to 2**63 - 1"),
        (["rank", "--out", "/proc/no"], "cannot write to /proc/no"),
        (["bench", "--seed", str(2**64)], "seed must be an integer from 0 to 2**63 - 1"),
    ],
    ids=lambda a: " ".join(a)[:40] if isinstance(a, list) else "",
)
def test_bad_arguments(refused, arguments, message):
    assert message in refused(*arguments)


RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 8, 8, 1)).astype(np.float32), np.arange(60) % 3
NAN = np.where(np.arange(60)[:, None, None, None] == 7, np.nan, X)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": X, "y": Y}, "no array x, only a, y: write it with np.savez"),
        ({"x": X}, "no array y, only x"),
        ({"x": NAN, "y": Y}, "bad.npz"),
        ({"x": X[:, 0, 0], "y": Y}, "bad.npz"),
        ({"x": X, "y": np.zeros(60, int)}, "bad.npz"),
        ({"x": X[:20], "y": Y[:20]}, "a batch of 64 from"),
        ({"x": X, "y": Y[:50]}, "bad.npz"),
    ],
    ids=["no x", "no y", "NaN", "rank", "one class", "few", "lengths"],
)
def test_bad_data(refused, tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    assert message in refused("search", "--strategy", "darts", "--data", "bad.npz", "--out", "made/for/this")


def test_a_damaged_npz(refused, tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"PK\3\4 and no more")
    assert "not an .npz file, or a damaged one" in refused("search", "--data", "bad.npz")


def test_tfds_without_a_network(refused, monkeypatch, tmp_path):
    pytest.importorskip("tensorflow_datasets")
    monkeypatch.setattr("jaxnas.data.tfds._online", lambda: False)
    assert "there is no network: copy it there, or use --data digits" in refused("search", "--data", "tfds:mnist")


def test_directories_that_cannot_be(refused, tmp_path):
    (tmp_path / "file").write_text("x")
    assert "cannot write to file/below (Not a directory): give another --out" in refused("search", "--out", "file/below")
    assert "file exists, and is no run: give another --out" in refused("search", "--out", "file")
    assert "file is not a run" in refused("resume", "file")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "kept").write_text("x")
    assert "run exists, and is no run: give another --out" in refused("search", "--out", "run")
    (tmp_path / "run" / "config.json").write_text("x")
    assert "run exists: continue it with jaxnas resume run, or give another --out" in refused("search", "--out", "run")


def test_an_empty_directory_of_the_user_stays(refused, tmp_path):
    (tmp_path / "mine").mkdir()
    refused("search", "--out", "mine", "--data", "none.npz")
    refused("search", "--out", "mine/below", "--data", "none.npz")


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", '{"steps": "x"}', '{"data": 3}', '{"seed": null}', '{"other": 1}', '{"steps": 0}', "\xff\xfe"),
        *(50_000 * "[", '{"use": ' + 300 * "[" + 300 * "]" + "}", '{"seed": ' + 9000 * "9" + "}", '{"data": ""}', '{"limit": " "}'),
        None,  # a folder
    ],
    ids=lambda text: str(text)[:20],
)
def test_a_damaged_config(refused, tmp_path, text):
    (tmp_path / "run").mkdir()
    if text is None:
        (tmp_path / "run" / "config.json").mkdir()
    else:
        (tmp_path / "run" / "config.json").write_bytes(text.encode("latin-1"))
    for said in (refused("resume", "run"), refused("show", "run")):
        assert not re.search("codec|recursion|format code|digits", said), said


def test_a_run_without_or_with_a_damaged_result(refused, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    assert "run has no result yet: finish it with jaxnas resume run" in refused("show", "run")
    (tmp_path / "run" / "result.json").touch()
    for text in ('{"genotype": "a"', "[]", "3", '{"found": {"test_accuracy": "x"}}', 50_000 * "[", "\xff\xfe", None):
        (tmp_path / "run" / "result.json").unlink()
        if text is None:
            (tmp_path / "run" / "result.json").mkdir()
        else:
            (tmp_path / "run" / "result.json").write_bytes(text.encode("latin-1"))
        assert "result.json is damaged: make it again with jaxnas resume run" in refused("show", "run")


# --- help, list, show -------------------------------------------------------------------------------------------------


def test_help_does_not_wait_for_jax():
    code = """
        import sys, time
        from jaxnas.app.cli import main
        try:
            main(["--help"])
        except SystemExit as end:
            code = end.code
        heavy = {"jax", "flax", "optax", "orbax", "matplotlib", "sklearn", "scipy"} & set(sys.modules)
        assert not code and not heavy, (code, heavy)
        assert time.process_time() < 2, time.process_time()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("search", "resume", "show", "list"))


@pytest.mark.parametrize("arguments", [[], ["search", "--help"]])
def test_help(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code in (0, None) and "--help" in capsys.readouterr().out


def test_list(capsys):
    assert cli.main(["list"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for word in ("nasbench201", "darts-pt", "aging", "digits", "tfds:NAME", "sep_conv_3x3", "none", "synflow"):
        assert word in out


@pytest.mark.parametrize(
    ("text", "space", "out"), [("DARTS_V2", "darts", "x.svg"), (BENCH, "nasbench201", "x.png"), (BENCH, "nasbench201", "x.svg")]
)
def test_show_a_genotype(capsys, tmp_path, monkeypatch, text, space, out):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["show", text, "--out", out]) == 0
    printed, err = capsys.readouterr()
    assert err == "" and printed.startswith(f"{space}: ") and f"drawn in {out}" in printed
    content = (tmp_path / out).read_bytes()
    assert content.startswith(b"\x89PNG") if out.endswith("png") else b"<svg" in content


# --- one search from end to end ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The directory of a finished run, and what it printed.  Tests read it, or resume it, which changes nothing."""
    directory = tmp_path_factory.mktemp("cli") / "run"
    return directory, jaxnas("search", *SMALLEST, "--out", directory)


def test_a_search_keeps_what_it_promises(finished):
    directory, done = finished
    promised = "config.json log.jsonl checkpoints result.json architecture.svg curves.png gates.png weights.npz"
    for name in [*promised.split(), "export.bin", "network.json"]:
        assert (directory / name).exists(), name
        assert name in done.stdout
    assert f"run directory: {directory}" in done.stderr
    config, result = (json.loads((directory / name).read_text()) for name in ("config.json", "result.json"))
    assert config["steps"] == 4 and config["data"] == "digits" and config["seed"] == 0
    assert journal.read(directory)[-1]["step"] == journal.read(directory / "found")[-1]["step"] == 4
    assert result["genotype"] in done.stdout and result["verdict"] in done.stdout
    for name in ("found", "random"):
        assert 0 <= result[name]["test_accuracy"] <= 1 and result[name]["parameters"] > 0
    assert result["found"]["test_examples"] == 359


def test_the_export_stands_alone(finished, tmp_path):
    directory, _ = finished
    result = json.loads((directory / "result.json").read_text())
    space = spaces.nasbench201()
    module = nets.evaluation_net(space, space.from_text(result["genotype"]), classes=10, channels=2, cells=1)
    variables = export.load_weights(directory / "weights.npz")
    held = json.loads((directory / "network.json").read_text())
    assert held["genotype"] == result["genotype"] and held["space"] == "nasbench201" and held["name"] == "digits"
    x = jax.random.uniform(jax.random.key(0), (5, 8, 8), jnp.float32, 0.0, 16.0)  # as scikit-learn has them
    normalised = data.Inputs.from_json(held["inputs"]).normalise(x)
    want = np.asarray(jax.nn.softmax(jax.jit(module.apply)(variables, normalised)))
    np.save(tmp_path / "x.npy", x)
    code = f"""
        import sys
        import numpy as np
        import jax, jax.export
        call = jax.export.deserialize(open({str(directory / "export.bin")!r}, "rb").read()).call
        x = np.load("x.npy")
        np.savez("probabilities.npz", five=call(x), two=call(x[:2]))
        assert not [m for m in sys.modules if m.split(".")[0] in ("jaxnas", "flax", "optax")]
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, check=True, timeout=120)
    with np.load(tmp_path / "probabilities.npz") as got:
        assert want.shape == (5, 10)
        np.testing.assert_allclose(got["five"], want, 1e-4, 1e-5)
        np.testing.assert_allclose(got["two"], want[:2], 1e-4, 1e-5)
    np.testing.assert_allclose(export.load_export(directory / "export.bin")(x), want, 1e-4, 1e-5)


def test_show_a_run(finished, capsys):
    directory, done = finished
    assert cli.main(["show", str(directory)]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.startswith("darts in nasbench201 on digits, 4 steps, seed 0\n")
    assert done.stdout.strip() in out


def test_a_finished_run_is_not_overwritten(finished, refused):
    directory, _ = finished
    before = (directory / "result.json").read_bytes()
    assert f"continue it with jaxnas resume {directory}" in refused("search", *SMALLEST, "--out", directory)
    assert (directory / "result.json").read_bytes() == before


def test_a_finished_run_is_resumed_to_the_same_result(finished):
    directory, done = finished
    before = {name: (directory / name).read_bytes() for name in ("result.json", "export.bin", "weights.npz", "network.json")}
    assert jaxnas("resume", directory).stdout == done.stdout
    assert {name: (directory / name).read_bytes() for name in before} == before
    assert str(ROOT).encode() not in before["export.bin"] and b"site-packages" not in before["export.bin"]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"learning_rate": 0.05}, "--learning-rate changed from 0.025 to 0.05; set it back (in config.json"),
        ({"augment": "crop"}, "--augment changed from none to crop"),
        ({"candidate_steps": 7}, "--candidate-steps changed from 60 to 7"),
        ({"strategy_settings": {"order": "exact"}}, "--strategy.order changed from first to exact"),
        ({"data": "elsewhere.npz"}, None),
    ],
)
def test_settings_are_part_of_what_a_run_is_of(edit, said):
    dataset = data.load("digits", jax.random.key(0))
    before = {"strategy": "darts", "strategy_settings": {"order": "first"}}
    held, here = (search.identity(read_config(values, "c"), dataset) for values in (before, before | edit))
    differs = fingerprint.difference(held, here)
    assert (differs is None) if said is None else said in checkpoint.other(*differs)


def test_other_data_are_another_run():
    config = read_config({}, "c")
    one, other = (search.identity(config, data.load("digits", jax.random.key(seed))) for seed in (0, 1))
    assert fingerprint.difference(one, other)[0] == "--data"


def test_an_edited_config_is_refused_before_anything_is_written(finished, tmp_path, capsys):
    directory, _ = finished
    shutil.copytree(directory, tmp_path / "run")
    held = json.loads((directory / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps({**held, "learning_rate": 0.05}))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert cli.main(["resume", str(tmp_path / "run")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"jaxnas: .*checkpoints is of another run: --learning-rate changed from 0.025 to 0.05; set it back", last)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def test_what_stands_in_the_way_is_set_aside(tmp_path, caplog):
    (tmp_path / "curves.png").mkdir()
    (tmp_path / "curves.png.aside").mkdir()
    (tmp_path / "found").write_text("x")
    files.make_way(tmp_path, files=search.FILES, folders=search.FOLDERS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curves.png.aside", "curves.png.aside-2", "found.aside"]
    assert "set aside as curves.png.aside-2" in caplog.text


def test_a_run_in_use_is_not_gone_on_with(refused, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    script = (
        "import pathlib; from jaxnas.driver.lock import locked\nwith locked(pathlib.Path('run')): print(1, flush=True); input()"
    )
    options = dict(cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", script], **options) as other:
        other.stdout.readline()
        assert f"run is in use by process {other.pid} on " in refused("resume", "run")
        other.kill()


def test_no_finite_score_is_an_outcome_of_its_own(tmp_path, capsys, monkeypatch):
    """Nothing is retrained; the result, the words and the exit code say so, and so do the commands that come later."""
    never = base.stateless(lambda key, archs, batch: {"accuracy": jnp.full(1, jnp.nan)})
    plan = lambda job: base.then(base.Phase(base.black_box(random_search(job.space), never), 3))
    monkeypatch.setattr(search, "make_plan", plan)
    run = str(tmp_path / "run")
    for arguments in (
        ["search", "--strategy", "random", "--space", "nasbench201", "--channels", "2", "--out", run],
        ["resume", run],
    ):
        assert cli.main(arguments) == cli.NO_ANSWER == 3
        assert capsys.readouterr().out.startswith("no candidate had a finite score, so there is no answer: look at")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["outcome"] == "no finite score" and result["genotype"] is None and "found" not in result
    assert cli.main(["show", run]) == cli.main(["watch", run]) == 0
    assert capsys.readouterr().out.count("no candidate had a finite score") == 2
    assert cli.main(["predict", run, "digits"]) == 2
    assert "has no network: no candidate of its search had a finite score" in capsys.readouterr().err


def test_watch_passes_over_what_it_cannot_read(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"steps": "x", "trials": "y"}')
    (tmp_path / "plan.json").write_text('{"steps": [], "seconds": "z"}')
    line = '{"step": 3, "phase": "search", "seconds": "x", "loss": 1.0}\n'
    (tmp_path / "log.jsonl").write_text('{}\n{"step": "x"}\n' + line + "[1,2]\n" + line)
    (tmp_path / "trials.jsonl").write_text(json.dumps(dict.fromkeys(progress.FIELDS, "x")) + "\n")
    (tmp_path / "result.json").write_text("[" * 50_000)
    assert cli.main(["watch", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "search, search: step 3: loss 1\nfinished\n"


def test_words_are_wrapped_in_a_terminal(monkeypatch):
    line = "jaxnas: " + "a rather long line of words " * 10
    assert cli._wrapped(line) == line
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, cli._wrapped(line).splitlines())) <= 60 and cli._wrapped(line).split() == line.split()


def test_damaged_checkpoints_are_one_line_each(finished, tmp_path):
    directory, _ = finished
    shutil.copytree(directory, tmp_path / "run")
    for file in (tmp_path / "run" / "checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(bytes(b ^ 0x55 for b in file.read_bytes()))
    lines = jaxnas("resume", tmp_path / "run", check=2).stderr.splitlines()
    assert "Traceback" not in "".join(lines)
    assert re.match("jaxnas: no checkpoint in .* can be read .*: remove .*checkpoints, and a resume", lines[-1])
    assert len(lines) == 4 + len(list((directory / "checkpoints").iterdir()))  # a warning each, where, of what data, and what


@pytest.mark.slow
def test_seeds_are_one_program_and_one_of_them_is_kept(tmp_path, capsys):
    assert cli.main(["search", *SMALLEST, "--seeds", "2", "--out", str(tmp_path / "run")]) == 0
    out, _ = capsys.readouterr()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert len(result["genotypes"]) == result["seeds"] == 2
    assert result["genotype"] == result["genotypes"][result["chosen_seed"]] == result["found"]["genotype"]
    assert result["genotype"] in out
    line = journal.read(tmp_path / "run")[-1]
    assert np.isfinite(line["loss"]) and np.isfinite(line["loss_ci"])
    assert "seconds" not in json.dumps(result), "equal runs write equal results"


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, by",
    [
        (["--space", "darts-rnn", "--strategy", "gdas", "--batch", "4"], "validation loss on the shared weights"),
        (["--space", "nasbench201", "--strategy", "te-nas", "--strategy.points", "10"], "none: the search trains no weights"),
        (["--space", "nasbench201", "--strategy", "random", "--candidate-steps", "2"], "score of the best candidate"),
    ],
)
def test_what_chose_the_seed_is_said(arguments, by, tmp_path):
    (tmp_path / "text.txt").write_text("the rain in spain falls mainly on the plain. " * 100)
    data = ["--data", str(tmp_path / "text.txt")] if "darts-rnn" in arguments else []
    sizes = ["--steps", "3", "--train-steps", "2", "--channels", "4", "--seeds", "2"]
    assert cli.main(["search", *arguments, *data, *sizes, "--out", str(tmp_path / "run")]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["chosen_by"].startswith(by)
    assert result["chosen_seed"] == 0 or not by.startswith("none")
    assert result["genotype"] == result["genotypes"][result["chosen_seed"]]


def test_the_child_of_snas_is_tried_on_the_weights_of_the_search(tmp_path, capsys):
    """Before it is trained, and again after a resume: in the result, on the terminal and in the report."""
    run = tmp_path / "run"
    sizes = ["--steps", "2", "--train-steps", "2", "--channels", "2", "--batch", "64"]
    assert cli.main(["search", "--strategy", "snas", *sizes, "--out", str(run)]) == 0
    out, err = capsys.readouterr()
    kept = (run / "result.json").read_bytes()
    tried = json.loads(kept)["without_retraining"]
    assert set(tried) == {"accuracy", "loss"} and 0 <= tried["accuracy"] <= 1 and np.isfinite(tried["loss"])
    words = f"accuracy {tried['accuracy']:.4g}, loss {tried['loss']:.4g} on the validation part, without retraining"
    assert f"on the weights of the search: {words}" in err.splitlines()
    assert f"found, as is    {words}" in out.splitlines()
    assert words in (run / "report.html").read_text()
    (run / "result.json").unlink()
    assert cli.main(["resume", str(run)]) == 0
    assert (run / "result.json").read_bytes() == kept


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m jaxnas.app.cli list | head -1"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.count("\n") == 1 and done.stderr == ""


def test_a_rank_that_is_killed_while_it_writes_is_asked_for_again(tmp_path, monkeypatch):
    """All files come at once: a kill among the pictures leaves none, and the same command makes them all."""
    size = ["--cells", "1", "--channels", "2", "--architectures", "5", "--top", "3", "--batch", "4", "--proxy", "params", "flops"]
    command, out = ["rank", *size, "--out", str(tmp_path / "rank")], tmp_path / "rank"
    save = plot.save

    def killed(figure, path):
        save(figure, path)
        raise Killed

    monkeypatch.setattr(plot, "save", killed)
    with pytest.raises(Killed):
        cli.main(command)
    assert [p.name for p in out.iterdir()] == [".part"]
    monkeypatch.setattr(plot, "save", save)
    assert cli.main(command) == 0
    assert {p.name for p in out.iterdir()} == {"results.md", "scores.csv", "params.png", "flops.png"}
    assert cli.main(command) != 0  # what is there stays


class Killed(BaseException):
    pass


def test_rank_judges_proxies_on_a_table(tmp_path, capsys):
    size = ["--cells", "1", "--channels", "2", "--architectures", "12", "--top", "3", "--batch", "4"]
    assert cli.main(["rank", "--proxy", "params", "flops", *size, "--out", str(tmp_path / "rank")]) == 0
    out, _ = capsys.readouterr()
    assert "| params | " in out and "| flops | " in out
    assert {p.name for p in (tmp_path / "rank").iterdir()} == {"results.md", "scores.csv", "params.png", "flops.png"}
    assert len((tmp_path / "rank" / "scores.csv").read_text().splitlines()) == 13


# A background shell starts its children with Ctrl-C ignored; a person's terminal does not.
INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from jaxnas.app.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_and_resume(finished, tmp_path):
    """Interrupted in the search, then in the training of the found architecture; the result is that of the whole run."""
    directory, done = finished
    cut = tmp_path / "run"
    arguments = ["search", *SMALLEST, "--out", str(cut)]
    for moment in ("searching", "training the found"):
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTIBLE, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        watchdog = threading.Timer(600, process.kill)
        watchdog.start()
        heard = []
        for line in process.stderr:
            heard.append(line)
            if line.startswith(moment):
                os.kill(process.pid, signal.SIGINT)
                break
        heard += process.stderr.readlines()
        process.communicate()
        watchdog.cancel()
        assert process.returncode == 130, heard
        assert heard[-1].startswith("jaxnas: ") and "Traceback" not in "".join(heard)
        assert not (cut / "result.json").exists() and not (cut / "weights.npz").exists()
        arguments = ["resume", str(cut)]
    assert jaxnas("resume", cut).stdout.replace(str(cut), str(directory)) == done.stdout
    assert (cut / "result.json").read_bytes() == (directory / "result.json").read_bytes()
    with np.load(cut / "weights.npz") as a, np.load(directory / "weights.npz") as b:
        assert a.files == b.files and all(np.array_equal(a[name], b[name]) for name in a.files)


@pytest.mark.parametrize(
    "flags, why",
    [
        (["--limit", "params=10"], "the smallest hand-made network has"),
        (["--minutes", "0.01"], "minutes are too few to train two networks: give --minutes"),
    ],
)
def test_a_budget_that_buys_nothing_is_one_line_and_leaves_nothing(flags, why, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["search", *flags]) == 2
    assert why in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())
