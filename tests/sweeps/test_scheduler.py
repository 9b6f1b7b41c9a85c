"""What of a sweep is carried out, and what came of it, with an engine that only pretends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from secli.errors import InputError
from secli.records.schema import read_sweep_record, read_training_record, write_record
from secli.sweeps.engine import Done, Failed, Left, Notice, Started, SweepEvent, SweepReport
from secli.sweeps.jobs import SweepJob, carry_out, failure_file, mark_failed, standing
from secli.sweeps.plan import PlannedRun, plan
from secli.sweeps.scheduler import (
    chosen,
    data_before,
    job_states,
    run_jobs,
    seconds_below,
    write_sweep,
)
from secli.training.events import silent
from tests.sweeps.conftest import Jobs, sweep_of


class Pretender:
    """Ends each job as it is told, by the job's seed; does nothing else."""

    slots = 1

    def __init__(self, *ends: str) -> None:
        self.ends, self.given = ends, list[int]()

    def run(self, jobs: Sequence[SweepJob], report: SweepReport, stop: Callable[[], bool]) -> None:
        for job in jobs:
            if stop():
                return
            self.given.append(job.training.seed)
            report(Started(job, "w"))
            how = self.ends[job.training.seed]
            if how == "done":
                report(Done(job, 1.0))
            elif how == "failed":
                report(Failed(job, "because"))
            elif how == "held":
                report(Left(job, "in other hands"))


def go(
    jobs: Sequence[SweepJob], engine: Pretender, retry: bool = False
) -> tuple[list[int], list[int], list[int]]:
    outcome = run_jobs(jobs, engine, lambda event: None, lambda: False, retry)
    pairs = (outcome.failed, outcome.left)
    failed, left = ([job.training.seed for job, _ in pair.values()] for pair in pairs)
    return [job.training.seed for job in outcome.finished], failed, left


def test_every_job_ends_in_one_place_and_failures_are_known_to_the_next_call(jobs: Jobs) -> None:
    several = jobs(seeds="0-3")
    carry_out(several[1], silent)
    events: list[SweepEvent] = []
    engine = Pretender("done", "", "failed", "held")
    outcome = run_jobs(several, engine, events.append, lambda: False)
    assert engine.given == [0, 2, 3]
    assert [job.training.seed for job in outcome.finished] == [1, 0]
    assert [(job.training.seed, why) for job, why in outcome.failed.values()] == [(2, "because")]
    assert [(job.training.seed, why) for job, why in outcome.left.values()] == [(3, "in other hands")]
    assert [type(event) for event in events] == [Started, Done, Started, Failed, Started, Left]
    # the pretender has trained nothing, so only the failure is written down: it is not tried again unasked
    engine = Pretender("done", "", "done", "done")
    assert go(several, engine) == ([1, 0, 3], [2], [])
    assert engine.given == [0, 3]
    engine = Pretender("done", "", "failed", "done")
    assert go(several, engine, retry=True) == ([1, 0, 3], [2], [])
    assert engine.given == [0, 2, 3]
    assert failure_file(several[2].run).exists()
    engine = Pretender("done", "", "done", "done")
    assert go(several, engine, retry=True) == ([1, 0, 2, 3], [], [])
    assert not failure_file(several[2].run).exists()


def test_a_stopped_sweep_has_jobs_left_and_an_engine_without_work_is_not_asked(jobs: Jobs) -> None:
    several = jobs(seeds="0-1")
    outcome = run_jobs(several, Pretender("done", "done"), lambda event: None, lambda: True)
    assert [why for _, why in outcome.left.values()] == ["", ""]
    for job in several:
        carry_out(job, silent)
    engine = Pretender()
    assert go(several, engine) == ([0, 1], [], [])
    assert engine.given == []
    assert {each.state for each in job_states(several).values()} == {"done"}


def test_a_failure_that_cannot_be_written_down_is_told_all_the_same(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(job: SweepJob, reason: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("secli.sweeps.scheduler.mark_failed", full)
    several = jobs()
    assert go(several, Pretender("failed")) == ([], [0], [])
    assert standing(several[0]).state == "todo"


def test_a_failed_measurement_is_tried_again_on_request_only(jobs: Jobs) -> None:
    (job,) = jobs(measure={"images": 3, "factors": [1]})
    bare = job.model_copy(update={"measure": None})
    carry_out(bare, silent)
    mark_failed(job, "measuring: no such tap")
    assert go([job], Pretender("done")) == ([], [0], [])
    assert go([job], Pretender("done"), retry=True) == ([0], [], [])
    assert standing(job).state == "trained"


@pytest.mark.parametrize("retry", [False, True])
def test_a_run_made_with_another_default_hinders_no_other(jobs: Jobs, retry: bool) -> None:
    several = jobs(seeds="0-2")
    carry_out(several[1], silent)
    record = read_training_record(several[1].run)
    status = "interrupted" if retry else "finished"
    older = record.model_copy(update={"training": {**record.training, "nesterov": True}, "status": status})
    write_record(several[1].run / "record.json", older)
    before = (several[1].run / "record.json").read_bytes()
    engine = Pretender("done", "done", "failed")
    outcome = run_jobs(several, engine, lambda event: None, lambda: False, retry)
    assert engine.given == [0, 2]
    assert [job.training.seed for job in outcome.finished] == [0]
    assert [job.training.seed for job, _ in outcome.failed.values()] == [1, 2]
    assert "made with training.nesterov = True by an older secli" in outcome.failed[several[1].key][1]
    assert outcome.hopeless == {several[1].key}
    assert (several[1].run / "record.json").read_bytes() == before


# ---- --only and --limit


def runs() -> list[PlannedRun]:
    models = ["mnist_ses_scalar_28", "dss_v1", {"name": "cnn", "label": "28"}]
    return plan(
        sweep_of(
            models=models,
            datasets=[{"name": "digits-scale", "realisations": "0-1"}],
            grid={"training.milestones": [[1], [5, 8]]},
        )
    )


@pytest.mark.parametrize(
    ("only", "count"),
    [
        ([], 12),
        (["dss_*"], 4),
        (["*_28"], 4),  # a pattern, though YAML takes it for something else
        (["model=dss_v1"], 4),
        (["model=dss_v1", "realisation=0"], 2),
        (["model=dss_v1", "model=cnn"], 8),
        (["model=[dss_v1, cnn]"], 8),
        (["model=[ds*"], 0),
        (["label=28"], 4),
        (["realisation=[0, 1]"], 12),
        (["training.milestones=[5, 8]"], 6),
        (["model.base=2"], 4),
        (["training.nesterov=false", "seed=0", "dataset=digits*"], 12),
        (["realisation=2"], 0),
    ],
)
def test_only_takes_the_runs_that_match(only: list[str], count: int) -> None:
    if count:
        assert len(chosen(runs(), only, None)) == count
        return
    with pytest.raises(InputError, match="no run of the sweep matches"):
        chosen(runs(), only, None)


def test_limit_takes_the_first_and_an_unknown_key_is_refused() -> None:
    every = runs()
    assert chosen(every, ["dss_v1"], 3) == [run for run in every if run.model.name == "dss_v1"][:3]
    with pytest.raises(InputError, match=r"--only modle=cnn: no run has 'modle'"):
        chosen(every, ["modle=cnn"], None)


# ---- what is written down


def test_the_sweeps_record_lists_its_runs(tmp_path: Path, jobs: Jobs) -> None:
    sweep = sweep_of(
        parts=[{"tag": "a"}, {"tag": "b", "models": [{"name": "dcn", "label": "DCN"}]}],
        tables=[{"title": "T", "rows": ["label"]}],
    )
    planned = plan(sweep)
    folders = {"k1": Path("cnn/one"), "k2": Path("dcn/two")}
    write_sweep(tmp_path, sweep, planned, folders, ["k1", "k2"], "secli sweep x")
    record = read_sweep_record(tmp_path)
    assert record is not None
    assert [(run.key, run.run, run.model, run.label, run.tag) for run in record.runs] == [
        ("k1", "cnn/one", "cnn", "cnn", "a"),
        ("k2", "dcn/two", "dcn", "DCN", "b"),
    ]
    assert (record.name, record.command, record.tables[0]["title"]) == ("tiny", "secli sweep x", "T")
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.json"]
    first, second = record.runs
    assert (first.options, second.options) == tuple(run.resolved.options for run in planned)
    published = {"gamma": 0.5, "optimizer": "sgd"}
    assert first.training == {"epochs": 2, "batch": 16, "milestones": [], "threads": 1, **published}
    assert (first.dataset, first.realisation, first.seed) == ("digits-scale", 0, 0)
    write_sweep(tmp_path, sweep, planned, folders, ["k1", "k2"], "", {"k2": "digits-scale-1234"})
    record = read_sweep_record(tmp_path)
    assert record is not None
    assert [run.dataset for run in record.runs] == ["digits-scale", "digits-scale-1234"]


def test_the_data_of_runs_listed_before_are_known_by_their_records(tmp_path: Path, jobs: Jobs) -> None:
    one, two = jobs(tmp_path, seeds="0-1")
    runs = plan(sweep_of(seeds="0-1"))
    assert data_before(tmp_path, runs) == [None, None]
    carry_out(one, silent)
    folders = {job.key: job.run.relative_to(tmp_path) for job in (one, two)}
    write_sweep(tmp_path, sweep_of(), runs, folders, [one.key, two.key], "")
    its = read_training_record(one.run).data
    assert data_before(tmp_path, runs) == [its, None]  # the second never began
    assert data_before(tmp_path, [runs[1], runs[0]]) == [None, its]
    assert data_before(tmp_path, plan(sweep_of(training={"epochs": 3}))) == [None]
    (tmp_path / "sweep.json").write_text("{")
    assert data_before(tmp_path, runs) == [None, None]


def test_finished_runs_tell_how_long_they_trained(tmp_path: Path, jobs: Jobs) -> None:
    (job,) = jobs(tmp_path)
    (run,) = plan(sweep_of())
    assert seconds_below(tmp_path)(run) is None
    carry_out(job, silent)
    mark_failed(job.model_copy(update={"run": job.run.with_name(job.run.name + "x")}), "a file beside it")
    record = read_training_record(job.run)
    assert record.results is not None
    assert seconds_below(tmp_path)(run) == record.results.train_seconds
    (other,) = plan(sweep_of(training={"epochs": 3}))
    assert seconds_below(tmp_path)(other) is None
    write_record(job.run / "record.json", record.model_copy(update={"status": "failed", "results": None}))
    assert seconds_below(tmp_path)(run) is None


def test_remarks_pass(jobs: Jobs) -> None:
    class Talker(Pretender):
        def run(self, jobs: Sequence[SweepJob], report: SweepReport, stop: Callable[[], bool]) -> None:
            report(Notice("something", jobs[0]))
            super().run(jobs, report, stop)

    events: list[SweepEvent] = []
    run_jobs(jobs(), Talker("done"), events.append, lambda: False)
    assert [type(event) for event in events] == [Notice, Started, Done]
