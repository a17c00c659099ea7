"""The main job: what a run directory holds, that a cut changes nothing, and what the clock and a limit decide."""

import dataclasses
import functools
import json
import shutil
import types

import jax
import numpy as np
import pytest

from jaxnas import data, nets, spaces
from jaxnas.app import export, main_job, times
from jaxnas.app.limits import Limits, read_limit
from jaxnas.app.main_job import budget, finals
from jaxnas.app.main_job.arms import Arm, Trials, run_arm
from jaxnas.app.main_job.trainer import Examples, Trainer
from jaxnas.ask_tell._random_search import random_search
from jaxnas.driver.errors import NoFiniteScore
from jaxnas.training import cross_entropy

ONE = dict(
    block=("plain",), kernel=(3,), expansion=(2,), attention=(False,), norm=("batch",), activation=("relu",), head=("flatten",)
)


@functools.cache
def dataset():
    rng = np.random.default_rng(0)
    y = np.arange(240) % 3
    x = rng.normal(size=(240, 8, 8, 1)).astype(np.float32)
    x[:, :4] += 2.0 * (y - 1)[:, None, None, None]
    return data.split(jax.random.key(0), x, y, valid=None)


@functools.cache
def net():
    """One network, and so one program: its trainings are what is searched."""
    space = spaces.macro((8, 8, 1), stages=1, width=(4,), growth=(1.0,), depth=(1,), **ONE)
    return nets.backbones(space, image=(8, 8, 1), classes=3)


def go(directory, **more):
    directory.mkdir(exist_ok=True)
    effort = main_job.Effort(**dict(minutes=1.0, batch=16, steps=12, trials=8) | more)
    return main_job.run(directory, jax.random.key(1), net(), dataset(), effort)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("main") / "run"
    return directory, go(directory)


def deterministic(directory):
    """The trials, without what a clock has measured."""
    rows = [json.loads(line) for line in (directory / "trials.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "waited", "at")} for row in rows]


def test_a_run_keeps_what_it_promises(finished):
    directory, result = finished
    names = {p.name for p in directory.iterdir()}
    network = {"weights.npz", "export.bin", "network.json", "architecture.svg"}
    assert names == {"plan.json", "trials.jsonl", "members", "finals"} | network
    rivals = {"hand-made", "random", "small", "one-random"}
    assert set(result["against"]) == rivals and set(result["milliseconds"]) == {"found", *rivals}
    one = result["one-random"]["test_accuracy"]
    assert result["relative_improvement"] == pytest.approx(result["found"]["test_accuracy"] / one - 1)
    for name in ("found", *rivals, "ensemble"):
        assert 0 <= result[name]["test_accuracy"] <= 1 and result[name]["test_examples"] == len(dataset().test.y)
    assert result[result["kept"]]["test_accuracy"] > 0.8, "the problem is easy"
    assert result["trials"] == {"search": 8, "random": 8}
    assert result["found"]["parameters"] == nets.count_parameters(export.load_weights(directory / "weights.npz"))
    rows = deterministic(directory)
    assert [row["member"] for row in rows if row.get("arm") == "search" and row.get("start")], "somebody is promoted"
    assert result["found"]["validation"] == max(row["score"] for row in rows if row.get("arm") == "search" and "score" in row)
    assert result[result["kept"]]["validation"] == max(row["score"] for row in rows if "score" in row)


def test_the_export_predicts_what_was_tested(finished):
    directory, result = finished
    x = np.asarray(dataset().test.x) * dataset().inputs.std + dataset().inputs.mean  # as it was
    outputs = np.asarray(export.load_export(directory / "export.bin")(x.astype(np.float32)))
    right = (outputs.argmax(-1) == np.asarray(dataset().test.y)).mean()
    assert right == pytest.approx(result[result["kept"]]["of_each_seed"][0])


@pytest.mark.parametrize("lines", [0, 5, 9, 12])
def test_a_run_that_is_cut_goes_on_to_the_same_bits(finished, tmp_path, lines):
    directory, result = finished
    cut = tmp_path / "run"
    cut.mkdir()
    shutil.copyfile(directory / "plan.json", cut / "plan.json")
    shutil.copytree(directory / "members", cut / "members")
    whole = (directory / "trials.jsonl").read_text().splitlines(keepends=True)
    (cut / "trials.jsonl").write_text("".join(whole[:lines]) + whole[lines][:20])  # the last one was being written
    again = go(cut)
    assert deterministic(cut) == deterministic(directory)
    assert again == {**result, **{name: again[name] for name in ("waited_share", "milliseconds")}}
    assert (cut / "network.json").read_bytes() == (directory / "network.json").read_bytes()  # the export's digest is in it


def test_a_verdict_is_said_with_its_interval():
    d = dict(value=0.031, low=0.012, high=0.05, probability=0.99, verdict="better", same_network=False)
    same = dict(d, same_network=True)
    text = finals.verdict({"kept": "found", "trials": {"random": 7}, "against": {"hand-made": same, "random": d}}, "accuracy")
    assert text == (
        "the found network is the best hand-made network; better than the best of 7 random networks "
        "(+3.1 points of accuracy, 95 % +1.2 to +5)"
    )
    worse = dict(d, value=-0.02, low=-0.03, high=-0.01, verdict="worse")
    assert finals.verdict({"kept": "hand-made", "trials": {"random": 7}, "against": {"hand-made": worse}}, "accuracy").endswith(
        "hand-made network is kept"
    )


@pytest.mark.parametrize(
    "text, found",
    [
        ("params=200k", (2e5, None, None)),
        ("macs=5M", (None, 5e6, None)),
        ("params=1.5M, macs=2G", (1.5e6, 2e9, None)),
        ("latency=0.2ms,params=9", (9.0, None, 0.2)),
        ("latency=50us", (None, None, 0.05)),
        (None, (None, None, None)),
    ],
)
def test_limits_are_read(text, found):
    assert read_limit(text) == found


@pytest.mark.parametrize("text", ["5M", "latency=2", "latency=2M", "macs=5ms", "speed=2ms", "macs=", "macs=-1", "params=many"])
def test_other_limits_are_refused(text):
    with pytest.raises(ValueError, match="write params=200k"):
        read_limit(text)


@pytest.fixture(scope="module")
def trainer():
    split = dataset()
    together = [np.concatenate([a, b]) for a, b in zip(split.train, split.valid, strict=True)]
    made = Trainer(Examples(*map(jax.numpy.asarray, together), train=len(split.train.y)), net(), 16, cross_entropy)
    yield made
    made.close()


def test_a_limit_below_the_smallest_network_is_refused(trainer):
    with pytest.raises(ValueError, match="the smallest hand-made network has"):
        budget.make_plan(trainer, 60.0, "macs=10")


def test_limits_that_no_network_keeps_together_are_refused(trainer):
    with pytest.raises(ValueError, match=r"no hand-made network has at most .* milliseconds: give a larger --limit"):
        budget.make_plan(trainer, 60.0, "latency=0.001us", steps=3)


def test_of_each_family_the_widest_network_that_is_fast_enough_is_taken():
    blueprints = nets.backbones(spaces.macro((8, 8, 1)), image=(8, 8, 1), classes=3)
    measured = []

    def latency(choice):  # a multiply-add of a depthwise kernel takes three times as long
        inverted = choice.stages[0].block == "inverted"
        (arch,) = (a for f in blueprints.families.values() for a in f if blueprints.space.choice(a) == choice)
        measured.append(arch)
        return float(blueprints.cost(arch).macs) * (3e-6 if inverted else 1e-6)

    fast = types.SimpleNamespace(net=blueprints, latency=latency)
    networks, most = budget._scaled(fast, budget._costs(fast.net), Limits(milliseconds=0.8))
    for name, ladder in blueprints.families.items():
        macs = [float(blueprints.cost(arch).macs) * (3 if name == "mobilenet" else 1) for arch in ladder]
        assert networks[name] == blueprints.space.to_text(ladder[max(i for i, m in enumerate(macs) if m <= 8e5)])
    assert most <= 1.2e6 and len(measured) <= 3 * len(networks)
    assert list(networks) == list(blueprints.families), "what compiles soonest comes first"


def test_what_is_too_slow_is_refused_untrained(trainer, monkeypatch, tmp_path):
    monkeypatch.setattr(trainer, "latency", lambda choice: 2.0)
    common = dict(total=3, most=2, score=lambda outputs: outputs, sizes=lambda arch: (1, 1), held=dataset().valid.x)
    arm = Arm("random", net().space, random_search(net().space), 1, **common, slowest=1.0)
    records = list(run_arm(arm, jax.random.key(0), trainer, Trials(tmp_path), lambda: 0.0, lambda choice, macs, n: True))
    assert [r.score for r in records] == [-np.inf] * 2 and not (tmp_path / "members").exists()


def test_a_run_of_another_effort_or_key_is_refused_by_the_name_of_what_differs(finished, tmp_path):
    directory, _ = finished
    shutil.copytree(directory, tmp_path / "run")
    with pytest.raises(ValueError, match=r"plan.json is of another run: the trials of the effort changed from 8 to 9; set it back"):
        go(tmp_path / "run", trials=9)
    with pytest.raises(ValueError, match="the batch of the effort changed from 16 to 8"):
        go(tmp_path / "run", batch=8)
    effort = main_job.Effort(minutes=1.0, batch=16, steps=12, trials=8)
    with pytest.raises(ValueError, match="the root key changed"):
        main_job.run(tmp_path / "run", jax.random.key(2), net(), dataset(), effort)
    other = dataclasses.replace(dataset(), test=dataset().valid)
    with pytest.raises(ValueError, match="the examples changed"):
        main_job.run(tmp_path / "run", jax.random.key(1), net(), other, effort)
    (tmp_path / "run" / "plan.json").unlink()
    with pytest.raises(ValueError, match=r"plan.json is missing, and trials.jsonl is of a plan: start anew"):
        go(tmp_path / "run")


def test_trials_of_another_search_are_refused(finished, tmp_path):
    directory, _ = finished
    shutil.copytree(directory, tmp_path / "run")
    path = tmp_path / "run" / "trials.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["slot"] += 1
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"trial 1 of search is not what this search asks for: remove what follows"):
        go(tmp_path / "run")


@pytest.mark.parametrize("line", [b"{}\n", b"[1,2]\n", b"\x80\xff\n", 50_000 * b"[" + b"\n", b'{"arm": "search", "number": "1"}\n'])
def test_damaged_trials_are_set_aside(finished, tmp_path, caplog, line):
    directory, _ = finished
    whole = (directory / "trials.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "trials.jsonl").write_bytes(b"".join(whole[:3]) + line + whole[3])
    assert len(Trials(tmp_path).records) == 3
    assert "its first 3 trials are kept" in caplog.text and (tmp_path / "trials.jsonl.aside").exists()
    assert (tmp_path / "trials.jsonl").read_bytes() == b"".join(whole[:3])


def test_members_whose_files_are_lost_are_trained_again(finished, tmp_path, caplog):
    directory, _ = finished
    shutil.copytree(directory, tmp_path / "run")
    kept = Trials(tmp_path / "run")
    lost = next(i for i, r in enumerate(kept.records) if r.stop == 12)
    r = kept.records[lost]
    (tmp_path / "run" / "members" / f"{r.arm}-{r.number}.npz").write_bytes(b"PK\3\4 and no more")
    kept.check()
    assert len(Trials(tmp_path / "run").records) == lost and "is damaged: search" in caplog.text


def test_no_finite_score_is_no_answer(tmp_path, trainer):
    plan = budget.make_plan(trainer, 60.0, None, steps=3)
    kept = Trials(tmp_path)
    row = dict(arm="search", number=0, member=0, slot=0, start=0, stop=3, genotype="g", score=-np.inf, error=0.0, loss=1.0)
    kept._append(row | dict(params=1, macs=1, seconds=0.1, waited=0.0, at=0.2))
    searched = finals.Searched(tmp_path, dataset(), trainer, Trials(tmp_path), plan, "macro", None, lambda: 0.0)
    with pytest.raises(NoFiniteScore, match="none of 1 trainings has a finite score"):
        finals.compare(searched, jax.random.key(0), 0)


def test_times_are_apart_from_the_result(finished, tmp_path):
    _, result = finished
    boosted = {**result, "gradient-boosting": {"seconds": 1.5, "tried": 3}}
    same, measured = times.apart(boosted)
    assert not {"milliseconds", "waited_share"} & set(same) and same["gradient-boosting"] == {"tried": 3}
    times.write(tmp_path, measured)
    assert times.with_times(tmp_path, same) == boosted and times.with_times(tmp_path / "none", same) == same


@pytest.mark.parametrize("text", ["{", '{"seconds": 1}', "[]", 50_000 * "[", '{"fingerprint": {}}'])
def test_a_damaged_plan_is_one_line(text, tmp_path):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ValueError, match="is damaged or of another version: start anew"):
        budget.load_plan(tmp_path)


def test_minutes_that_are_too_few_say_how_many_are_needed(trainer):
    with pytest.raises(ValueError, match=r"minutes are too few to train two networks: give --minutes [\d.]+"):
        budget.make_plan(trainer, 0.01, None, clock=lambda: 0.0)


def test_a_plan_follows_from_measured_speed(trainer):
    plan = budget.make_plan(trainer, 600.0, None, clock=lambda: 10.0)
    assert plan.speed > 0 and plan.compiling > 0 and plan.arm == pytest.approx(0.33 * 590)
    assert plan.steps % 3 == 0 and plan.arms == 2
    assert plan.limit == float(net().cost(net().families["plain"][0]).macs)  # the dearest there is
    assert plan.networks.keys() == {"plain"} and plan.limit_ms is None


def test_what_is_compared_follows_from_the_time_that_is_left(finished, tmp_path):
    directory, _ = finished
    record = Trials(directory).records[0]._replace(start=0, stop=12, seconds=2.0, waited=0.8)  # 0.1 s a step
    names = ("found", "hand-made", "random", "small", "one-random")
    rivals = {name: record._replace(genotype=name) for name in names}
    rivals["small"] = rivals["small"]._replace(stop=6, seconds=1.4)
    data = types.SimpleNamespace(y=np.zeros(200), train=100)  # a final training takes twice as long: 2.4 s, the small one's 1.2

    def compared(left):
        where = tmp_path / str(left)
        where.mkdir()
        run = types.SimpleNamespace(directory=where, trainer=types.SimpleNamespace(data=data), left=lambda: left)
        found = finals._affordable(run, rivals)
        run.left = lambda: 0.0
        assert finals._affordable(run, rivals) == found, "a run that is cut goes on with what it has begun"
        return list(found[0]), found[1]

    assert compared(1.0) == (list(names[:3]), 1)
    assert compared(15.0) == (list(names[:3]), 2)
    assert compared(17.0) == (list(names[:4]), 2)
    assert compared(33.0) == (list(names), 3)
    assert compared(1e6) == (list(names), 5)
    assert compared(float("inf")) == (list(names), 2)


def test_a_record_that_diverged_is_read_back(tmp_path):
    kept = Trials(tmp_path)
    row = dict(arm="a", number=0, member=0, slot=0, start=0, stop=3, genotype="g", score=-np.inf, error=0.0, loss=float("nan"))
    row |= dict(params=1, macs=1, seconds=0.1, waited=0.0, at=0.2)
    kept._append(row)
    (again,) = Trials(tmp_path).records
    assert again.score == -np.inf and np.isnan(float(again.loss))
