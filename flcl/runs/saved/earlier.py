"""What an earlier process of a run left: its rows are loaded, its damaged files are made again."""

from pathlib import Path

from flcl.data.sequence.stream import Task
from flcl.devices import hosts
from flcl.methods.base import Memory
from flcl.runs.record import Record
from flcl.runs.reporter import Reporter
from flcl.runs.results import Results
from flcl.runs.saved.stored import earlier_results
from flcl.storage.seals import Seals


class Earlier:
    """The work of the processes before this one. Every process of a run has one `Earlier`.

    record: receives the rows. reporter: stores the pictures, and says what was damaged.
    """

    def __init__(self, record: Record, reporter: Reporter):
        self._record, self._reporter = record, reporter
        self._results: Results | None = None  # those of all rows that were loaded

    def load(self, workdir: Path, tasks: int, seals: Seals) -> None:
        """Loads what was measured for the first `tasks` tasks, which are stored.

        If `results.json` is damaged, one line says so and the tasks are evaluated again.
        """
        stored, damage = None, ""
        if hosts.is_main():
            stored, damage = earlier_results(workdir, seals)
        # The first process alone reads, so that all continue from the same rows.
        stored, damage = hosts.from_main([stored, damage])
        try:
            self._record.load(stored, tasks)
        except ValueError as error:
            damage = str(error)
        self._results = self._record.results() if self._record.rows else None
        if damage and tasks:
            self._reporter.say(f"{damage}; the {tasks} stored tasks are evaluated again")
        self._compare_images()

    def _compare_images(self) -> None:
        """Says which tasks have other images than when they were trained.

        It is no error: another version of a decoder also gives other pixels.
        """
        data = self._record.setup.data
        tasks = zip(data.stream.tasks, self._record.diagnosis, strict=False)
        known = [(task, each["images"]) for task, each in tasks if each.get("images")]
        changed = [
            str(task.index) for task, before in known if data.digest(task) not in (None, before)
        ]
        if changed:
            self._reporter.say(
                f"the images of task {', '.join(changed)} have other pixels now than when it was "
                "trained; tests from now on use those of now"
            )

    def mend(self, memory: Memory, task: Task) -> None:
        """Makes files of an evaluated task again that are damaged or have been replaced.

        memory: as it was after `task`.
        """
        record, reporter = self._record, self._reporter
        unfinished = len(record.rows) < len(record.setup.data.stream.tasks)
        if unfinished and (line := record.evaluation.mend(memory, task)):
            reporter.say(line)
        if hosts.from_main(reporter.lacks(task, self._results)):
            reporter.say(f"pictures of task {task.index} are missing or damaged: made again")
            reporter.mend(task, self._results, record.evaluation.draw(memory, task))
