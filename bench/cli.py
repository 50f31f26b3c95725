"""The command line: parses words, calls one room, prints, and turns every error into one line and an exit code.

Exit codes: 0 ok, 1 verdict against, 2 usage, 3 inconclusive, 4 could not measure, 5 sandbox violation,
6 malformed input, 7 internal error, 8 input/output, 130 interrupted, 141 the reader of a pipe went away.
"""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from grit import __version__
from grit.bench.types import CouldNotMeasure, GritError, UsageError

if TYPE_CHECKING:
    from msgspec import Struct

    from grit.bench.experiment import Experiment
    from grit.bench.explaining import Explained
    from grit.bench.gate.clock import Turns
    from grit.bench.leaderboard import Section
    from grit.bench.measure import Precision
    from grit.bench.run import Finished
    from grit.bench.verify import Report

_STORAGE_ERRNOS = {
    *(errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EIO),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
}


class _Unread(Exception):
    """Nobody reads any more what a command writes."""


class _Commands(click.Group):
    """Says that nobody reads where click and rich would exit with 1, which is a verdict."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except BrokenPipeError as error:
            raise _Unread from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _Unread from error
        except SystemExit as ended:
            if isinstance(ended.__context__, BrokenPipeError):  # rich has met it
                raise _Unread from ended
            raise


def main(arguments: list[str] | None = None) -> None:
    """The entry point of ``grit``."""
    try:
        _main(arguments)
    except (_Unread, BrokenPipeError):  # as in grit | head: what is written is lost, and nothing is wrong
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        sys.exit(128 + signal.SIGPIPE)


def _main(arguments: list[str] | None) -> None:
    for library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(library, "1")  # grit works in processes; threads under them only get in the way
    debug = "--debug" in (sys.argv[1:] if arguments is None else arguments)
    try:
        code = grit.main(args=arguments, prog_name="grit", standalone_mode=False)
    except click.exceptions.Abort:
        _fail("interrupted: the same command continues where it stopped", 130)
    except KeyboardInterrupt:
        _fail("interrupted: the same command continues where it stopped", 130)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        usage = f" (see '{context.command_path} --help')" if context else ""
        _fail(" ".join(error.format_message().split()) + usage, 2)
    except _Unread:
        raise
    except GritError as error:
        if debug:
            traceback.print_exc()
        _fail(" ".join(str(error).split()), error.exit_code)
    except OSError as error:
        if error.errno in _STORAGE_ERRNOS:
            if debug:
                traceback.print_exc()
            place = f"{error.filename}: " if error.filename else ""
            _fail(f"{place}{error.strerror}; free space or give another folder with -o: finished work is kept", 8)
        _internal(debug)
    # The last resort: whatever was not foreseen is reported as our bug, never as a result.
    except Exception:  # noqa: BLE001
        _internal(debug)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    click.echo(f"grit: {message}", err=True)
    sys.exit(code)


def _internal(debug: bool) -> None:
    report = traceback.format_exc()
    if debug:
        click.echo(report, err=True)
    with tempfile.NamedTemporaryFile("w", prefix="grit-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.write(f"gritbench {__version__}\n{' '.join(sys.argv)}\n{report}")
    last = report.strip().splitlines()[-1]
    _fail(f"internal error: {last}; this is a bug, the report is in {file.name}", 7)


def _emit(value: Any, as_json: bool, text: str) -> None:
    click.echo(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) if as_json else text)


def _words(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """'a,b' -> ('a', 'b'); brackets keep their commas, so that 'student[hidden=10,embedding=10]' is one word."""
    if value is None:
        return None
    words, depth, word = [], 0, ""
    for letter in value + ",":
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            if word.strip():
                words.append(word.strip())
            word = ""
        else:
            word += letter
    if not words:
        raise click.BadParameter("expected at least one name")
    return tuple(words)


def _settings(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...] | None:
    pairs = []
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r}: expected field=value, as in epochs=3")
        pairs.append((key, text))
    return tuple(pairs) or None


def _words_or_none(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return () if value == "none" else _words(context, parameter, value)


_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_debug = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
_output = click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to write to.")
_quiet = click.option("-q", "--quiet", is_flag=True, help="No progress.")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="grit")
def grit() -> None:
    """Adversarial robustness, size and ARM cost of compact text classifiers, on one honest leaderboard."""


# --- what there is -----------------------------------------------------------------------------------


@grit.command("list")
@click.argument("kind", required=False)
@_json
@_debug
def list_(kind: str | None, as_json: bool, debug: bool) -> None:
    """Models, attacks, schemes, datasets, targets and objectives that can be named."""
    from grit.bench import catalogue

    found = catalogue.everything(kind)
    _emit(found, as_json, catalogue.render(found))


@grit.command()
@_json
@_debug
def data(as_json: bool, debug: bool) -> None:
    """What data is here, what is missing, and how to get it."""
    from grit.bench import catalogue

    found = catalogue.data()
    _emit(found, as_json, catalogue.render_data(found))


@grit.command()
@click.option("--install", is_flag=True, help="First fetch what targets can have without root (onnxruntime for arm64).")
@_json
@_debug
def doctor(install: bool, as_json: bool, debug: bool) -> None:
    """What can be measured on this machine; for the rest, what to install."""
    from grit.bench import catalogue

    for line in catalogue.install() if install else ():
        click.echo(line, err=True)
    found = catalogue.doctor()
    _emit(found, as_json, catalogue.render_doctor(found))


@grit.command()
@click.argument("name")
@_json
@_debug
def check(name: str, as_json: bool, debug: bool) -> None:
    """Run the public contract on a model or an attack, by name."""
    from grit.bench import check as contract

    findings = contract.check_name(name)
    _emit(contract.as_json(findings), as_json, contract.render(findings))
    if not all(finding.ok for finding in findings):
        sys.exit(1)


@grit.command()
@click.argument("document", type=click.Choice(["record", "submission", "verdict", "ruling"]), default="record")
@_debug
def schema(document: str, debug: bool) -> None:
    """The JSON Schema (2020-12) of what grit writes."""
    from grit.bench import challenge, records, submission, verify

    kinds: dict[str, type[Struct]] = {
        "record": records.Record,
        "submission": submission.Submission,
        "verdict": verify.Report,
        "ruling": challenge.Ruling,
    }
    click.echo(json.dumps(records.schema(kinds[document], f"gritbench {document}"), indent=2, sort_keys=True))


# --- the experiment, whole and in steps --------------------------------------------------------------


def _experiment(command: Any) -> Any:
    """What says what an experiment is: options over the fields of a file over the defaults of Experiment."""
    options = [
        click.option("--dataset", help="Name, folder/file or path. [default: the embedded 'pings']"),
        click.option("--model", "models", callback=_words, help="Models, with commas; student[hidden=10] sets fields."),
        click.option("--scheme", "schemes", callback=_words, help="Training schemes, with commas."),
        click.option(
            "--attack",
            "attacks",
            callback=_words,
            help="Attacks key[.tier][+lexicon], textattack:RECIPE, or a suite as std@1; with commas. "
            "deepwordbug.paper[transform=swap] sets fields.",
        ),
        click.option("--target", "targets", callback=_words_or_none, help="Where cost is measured, or none."),
        click.option("--n", type=click.IntRange(min=1), help="Test examples to attack, by stratified hash rank."),
        click.option("--n-train", type=click.IntRange(min=1), help="Training examples. [default: all]"),
        click.option("--seed", type=click.IntRange(min=0), help="Seed of training and attacks. [default: 0]"),
        click.option("--set", "settings", multiple=True, callback=_settings, help="Replace a field: --set epochs=3."),
        click.option("--jobs", type=click.IntRange(min=1), help="Processes. [default: the cores]"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


_from_file = click.argument("file", required=False, type=click.Path(path_type=Path))


def _chosen(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _wanted(file: Path | None, options: dict[str, Any]) -> Experiment:
    """The experiment of a file, if any, with what the options replace; settings of both, the options' last."""
    from grit.bench.experiment import Experiment

    return Experiment(**_fields(file, options, Experiment))


def _fields(file: Path | None, options: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
    from grit.bench import experiment

    fields, chosen = experiment.read(file, kind) if file else {}, _chosen(options)
    settings = {**dict(fields.get("settings", ())), **dict(chosen.get("settings", ()))}
    return {**fields, **chosen, "settings": tuple(settings.items())}


@grit.command("run")
@_from_file
@_experiment
@_output
@_quiet
@_json
@_debug
def run_(
    file: Path | None, output: Path | None, quiet: bool, as_json: bool, debug: bool, jobs: int | None, **options: Any
) -> None:
    """Train, export, attack and measure every model under every scheme; then the board.

    FILE is TOML with the same fields (dataset, models, schemes, attacks, targets, n, n_train, seed and a table
    settings); options replace them.
    """
    from grit.bench import run

    finished = run.run(_wanted(file, options), output, jobs=jobs, quiet=quiet)
    _show(finished, as_json)


@grit.command()
@_from_file
@_experiment
@_output
@_quiet
@_debug
def train(file: Path | None, output: Path | None, quiet: bool, debug: bool, jobs: int | None, **options: Any) -> None:
    """Train and export only; 'grit run' with the same words continues from there."""
    from grit.bench import run

    folder = run.train(_wanted(file, options), output, jobs=jobs, quiet=quiet)
    click.echo(str(folder))


@grit.command()
@click.argument("model")
@_experiment
@click.option("--show", type=click.IntRange(min=1), help="Show so many adversarial texts of each attack as diffs.")
@_output
@_quiet
@_json
@_debug
def attack(
    model: str,
    show: int | None,
    output: Path | None,
    quiet: bool,
    as_json: bool,
    debug: bool,
    jobs: int | None,
    **options: Any,
) -> None:
    """Attack MODEL: a run folder, one row of it (RUN/ROW), a bundle, an exported artefact, or module:callable.

    A bundle is one of 'grit pack', an artefact what 'grit export --to program|onnx' wrote or any artefact.safetensors;
    a callable takes a list of texts and answers logits. Prints the board and what each attack cost: robust accuracy
    against edits and queries, also in curves.svg.
    """
    from grit.bench import run

    if show is not None and as_json:
        raise UsageError("--show prints texts for people, --json counts for programs: ask for one of them")
    finished = run.attack(model, _chosen(options), output, jobs=jobs, quiet=quiet)
    _show(finished, as_json)
    if not as_json:
        _draw(finished, show)


@grit.command()
@click.argument("model")
@click.option("--step", "steps", callback=_words, help="Rungs: steps joined by +, with commas; 'grit list steps'.")
@_experiment
@_output
@_quiet
@_json
@_debug
def compress(
    model: str,
    steps: tuple[str, ...] | None,
    output: Path | None,
    quiet: bool,
    as_json: bool,
    debug: bool,
    jobs: int | None,
    **options: Any,
) -> None:
    """Compress MODEL, one row of a run folder (RUN/ROW), rung by rung; attack and measure each.

    A rung is one step or several, as --step int8,vocabulary[share=0.25]+products; it ends in int8 unless it says fp32
    or fp16. Prints the ladder and what adversarial texts carry from rung to rung; rungs are rows of the board.
    """
    from grit.bench import compressing, records

    ladder = compressing.climb(model, steps or compressing.STEPS, _chosen(options), output, jobs=jobs, quiet=quiet)
    value = {
        "folder": str(ladder.folder),
        "records": [json.loads(records.encode_record(row.record)) for row in ladder.rows],
        "transfer": records.plain(ladder.transfer),
    }
    text = f"{compressing.markdown(ladder)}\nThe same in ladder.md, records, evidence and board.md in {ladder.folder}"
    _emit(value, as_json, text)


def _draw(finished: Finished, show: int | None) -> None:
    """The curves of a run's attacks; of each, ``show`` adversarial texts, on the terminal alone."""
    from rich.console import Console

    from grit.bench import curves, diffs, run

    console = Console()
    for row in finished.rows:
        console.print()
        for line in curves.lines(row.record):
            console.print(line, markup=False, highlight=False, no_wrap=True, overflow="ignore", crop=False)
    if show is not None:
        labels, found = run.breaks(finished, show)
        for each in found:
            console.print()
            console.print(diffs.heading(each, labels), style="bold", markup=False, highlight=False, soft_wrap=True)
            if console.is_terminal:
                console.print(diffs.coloured(each.example.text, each.script))
            else:
                console.print(
                    diffs.plain(each.example.text, each.script), markup=False, highlight=False, soft_wrap=True
                )


@grit.command()
@click.argument("model")
@click.option("--text", "texts", multiple=True, help="Explain this text alone; may be repeated.")
@click.option("--dataset", help="Data of the texts. [default: what the rows were trained on]")
@click.option("--n", type=click.IntRange(min=1), default=100, show_default=True, help="Test texts to score over.")
@click.option("--method", "methods", callback=_words, help="Explainers, with commas. [default: all]")
@click.option("--show", type=click.IntRange(min=0), default=1, show_default=True, help="Sentences a row to print.")
@click.option("--no-ceiling", is_flag=True, help="Train no second teacher: loyalty without its ceiling.")
@click.option("--planted", is_flag=True, help="Train models with planted shortcuts, too: a known truth.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@_output
@_quiet
@_json
@_debug
def explain(
    model: str,
    texts: tuple[str, ...],
    dataset: str | None,
    n: int,
    methods: tuple[str, ...] | None,
    show: int,
    no_ceiling: bool,
    planted: bool,
    seed: int,
    output: Path | None,
    quiet: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Explain MODEL, and say whether to believe it: what 'grit attack' takes, and run folders best.

    Every word of a text gets its share in the answer; the scores say how faithful that is to the deployed bytes, how
    loyal to the teacher, and what attacks do to it. They join the board of the run's folder. A model without its run
    is only asked: by leave-one-out, occlusion and Shapley values.
    """
    from grit.bench import explaining

    wanted = explaining.Wanted(texts, dataset, n, methods or (), show, not no_ceiling, planted, seed)
    _show_explained(explaining.explain(model, wanted, output, quiet=quiet), as_json)


def _show_explained(found: Explained, as_json: bool) -> None:
    """Coloured sentences and tables of scores, or all of it as JSON."""
    from rich.console import Console

    from grit.bench import records
    from grit.bench.explain import show

    if as_json:
        value = {
            "folder": str(found.folder) if found.folder else None,
            "explanations": [json.loads(records.encode(each)) for each in found.explanations],
            "sentences": [show.as_json(sentence) for sentence in found.sentences],
        }
        return _emit(value, True, "")
    console = Console()
    for sentence in found.sentences:
        console.print(show.heading(sentence), style="bold", markup=False, highlight=False, soft_wrap=True)
        console.print(
            show.coloured(sentence) if console.is_terminal else show.plain(sentence),
            markup=False,
            highlight=False,
            soft_wrap=not console.is_terminal,
        )
        for line in show.masked(sentence):
            console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)
        console.print()
    for explanation in found.explanations:
        for line in show.lines(explanation):
            console.print(line, markup=False, highlight=False, no_wrap=True, overflow="ignore", crop=False)
        console.print()
    if found.folder:
        click.echo(f"The page {show.PAGE} is in {found.folder}" + (", the scores beside it" * bool(found.explanations)))


@grit.command()
@click.argument("model")
@click.option("--target", "targets", callback=_words, help="Where cost is measured, with commas. [default: local]")
@click.option("--precision", is_flag=True, help="Instead: right answers of int8 and of fp32 on the whole test split.")
@_quiet
@_json
@_debug
def measure(
    model: str, targets: tuple[str, ...] | None, precision: bool, quiet: bool, as_json: bool, debug: bool
) -> None:
    """Measure what MODEL (a run folder or one row of it) costs, target by engine; all values with --json."""
    from grit.bench import measure as cost
    from grit.bench import records, run

    if precision:
        if targets:
            raise UsageError("--precision compares answers, which are the same on every target: leave --target out")
        _precision(run.precision(model), as_json)
        return
    cells = run.measure(model, targets or ("local",), quiet=quiet)
    values = {row: [records.plain(cell) for cell in found] for row, found in cells.items()}
    _emit(values, as_json, "\n\n".join(f"{row}\n{cost.render(found)}" for row, found in cells.items()))


def _precision(found: Mapping[str, Precision], as_json: bool) -> None:
    from grit.bench import records

    lines = [
        f"{row}: of {each.n:,} texts int8 gets {each.int8:,} right and fp32 {each.fp32:,}; "
        f"the same label on {each.agreed:,} ({100 * each.agreed / each.n:.2f} %)"
        for row, each in found.items()
    ]
    _emit({row: records.plain(each) for row, each in found.items()}, as_json, "\n".join(lines))


@grit.command("calibrate-target")
@click.argument("target")
@_json
@_debug
def calibrate_target(target: str, as_json: bool, debug: bool) -> None:
    """Fit time to instructions on a real device (ssh://user@host, adb://SERIAL), for the emulated cores here."""
    from grit.bench import measure, records

    found, path = measure.calibrate(target)
    clock = f", {found.cycles_per_instruction:.3g} cycles" if found.cycles_per_instruction else ""
    text = (
        f"{found.core} on {target}: {found.ns_per_instruction:.3g} ns{clock} an instruction; left out of the fit, "
        f"{found.programs} programs miss by {100 * found.median_error_share:.0f} % (median), "
        f"{100 * found.worst_error_share:.0f} % (worst)\nkept in {path}"
    )
    _emit(records.plain(found), as_json, text)


@grit.command()
@click.argument("model")
@click.option("--to", "format_", type=click.Choice(["onnx", "c", "program"]), required=True)
@click.option("--precision", type=click.Choice(["int8", "fp32"]), default="int8", show_default=True)
@_output
@_json
@_debug
def export(model: str, format_: str, precision: str, output: Path | None, as_json: bool, debug: bool) -> None:
    """Export MODEL (one row of a run folder) to files that ship."""
    from grit.bench import run

    if output is None:
        raise UsageError("export needs -o DIR: the folder to write to")
    sizes = run.export(model, format_, precision, output)
    text = "\n".join(f"{output / part}  {size:,} bytes" for part, size in sizes.items())
    _emit({"folder": str(output), "sizes_bytes": sizes}, as_json, text)


@grit.command()
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
@click.option("--format", "format_", type=click.Choice(["terminal", "markdown", "csv", "readme"]), default="terminal")
@_output
@_json
@_debug
def board(folders: tuple[Path, ...], format_: str, output: Path | None, as_json: bool, debug: bool) -> None:
    """The board of run folders and bundles (default: all under runs/); -o writes it as a self-contained page."""
    from grit.bench import leaderboard, records, submission
    from grit.bench.explain import scores
    from grit.bench.personalize import headline, results
    from grit.bench.site import verdicts, write_page

    if format_ == "readme":
        if output is not None or as_json:
            raise UsageError("--format readme prints Markdown: redirect it, without -o and --json")
        _readme(folders)
        return
    chosen = list(folders) or [Path("runs")]
    if not folders and not chosen[0].is_dir():
        raise CouldNotMeasure("no folder runs/ here: name run folders, or 'grit run' first")
    bundled = [row for folder in chosen if folder.is_dir() for row in submission.rows(folder)]
    personal = headline.headlines(results.below(chosen))
    other = bool(bundled or personal)
    runs = [folder for folder in chosen if not other or next(folder.rglob(records.RECORDS), None) is not None]
    rows = [*(leaderboard.load(runs) if runs else ()), *bundled]
    known = scores.below(chosen)
    checked = verdicts.below(chosen) if bundled else None
    sections = leaderboard.board(rows, verified=checked, explained=known, personal=personal)
    if output is not None:
        click.echo(str(write_page(sections, output, personal)))
    elif as_json:
        value = leaderboard.as_json(sections) | ({"personal": headline.as_json(personal)} if personal else {})
        click.echo(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))
    elif format_ == "markdown":
        click.echo("\n".join(filter(None, [leaderboard.markdown(sections), headline.markdown(personal)])))
    elif format_ == "csv":
        click.echo(leaderboard.comma_separated(sections), nl=False)
    else:
        _print(sections)
        click.echo(headline.text(personal), nl=False)


def _readme(folders: tuple[Path, ...]) -> None:
    """leaderboards/README.md, of the bundles below a folder; of personalization or explanations alone, theirs."""
    from grit.bench import submission
    from grit.bench.explain import report, scores
    from grit.bench.personalize import overview as personal
    from grit.bench.personalize import results
    from grit.bench.site.overview import overview

    if len(folders) != 1 or not folders[0].is_dir():
        raise UsageError("--format readme is of one folder of bundles: grit board leaderboards/ --format readme")
    if not submission.bundles_below(folders[0]):
        if rows := results.below(folders):
            return click.echo(personal.overview(rows), nl=False)
        if explained := scores.below(folders):
            return click.echo(report.markdown(explained.values()), nl=False)
    click.echo(overview(folders[0].resolve()), nl=False)


def _show(finished: Finished, as_json: bool) -> None:
    """The board of a run that has ended, or its records."""
    from grit.bench import leaderboard, records

    if as_json:
        rows = [json.loads(records.encode_record(row.record)) for row in finished.rows]
        click.echo(json.dumps({"folder": str(finished.folder), "records": rows}, indent=2, sort_keys=True))
    else:
        _print(leaderboard.board(finished.rows))
        click.echo(f"\nRecords, evidence, board.md and index.html are in {finished.folder}")


def _print(sections: Sequence[Section]) -> None:
    from rich.console import Console

    from grit.bench import leaderboard

    leaderboard.show(sections, Console())


# --- a track of its own -------------------------------------------------------------------------------


def _numbers(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    return _seeds(_context, _parameter, value) if value is not None else None


@grit.command()
@_from_file
@click.option("--dataset", help="A set whose rows name users, or raters:NAME for made ones. [default: raters:pings]")
@click.option("--model", "models", callback=_words, help="Models, with commas. [default: student]")
@click.option("--scheme", help="How the global model is trained. [default: natural]")
@click.option("--arm", "arms", callback=_words, help="What may change on the device, with commas. [default: all arms]")
@click.option("--start", "starts", callback=_words, help="plain, meta, or both with a comma. [default: plain]")
@click.option("--k", "ks", callback=_numbers, help="Examples a user learns from, with commas. [default: 1,4,16,64]")
@click.option("--seeds", callback=_numbers, help="Seeds of the global models, with commas. [default: 0]")
@click.option("--attack", "attacks", callback=_words, help="Attacks on the copies, with commas.")
@click.option("--robust-users", type=click.IntRange(min=0), help="Test users a fold whose copies are attacked.")
@click.option("--most-users", type=click.IntRange(min=2), help="Validation users, and test users, at most.")
@click.option("--core", "cores", callback=_words_or_none, help="Emulated cores that learning is counted on, or none.")
@click.option("--n-train", type=click.IntRange(min=1), help="Training examples of the global model. [default: all]")
@click.option("--set", "settings", multiple=True, callback=_settings, help="Replace a field: --set epochs=3.")
@_output
@_quiet
@_json
@_debug
def personalize(
    file: Path | None, output: Path | None, quiet: bool, as_json: bool, debug: bool, **options: Any
) -> None:
    """Personalize a global model for users it has never seen: what is gained over the floors, and what it costs.

    Every epoch and rate is chosen on validation users and reported on others. Writes personal.jsonl and personal.md.
    FILE is TOML with the fields of a study (dataset, models, arms, starts, ks, seeds, ...); options replace them.
    """
    from grit.bench import records
    from grit.bench.personalize import board, study
    from grit.bench.progress import display

    asked = study.Study(**_fields(file, options, study.Study))
    folder = output or study.default_folder(asked)
    with display(sys.stderr, quiet=quiet) as shown:
        documents = study.run(asked, folder, shown.report)
    text = board.markdown([document.row for document in documents])
    records.write(folder / "personal.md", text.encode())
    value = {"folder": str(folder), "rows": [json.loads(records.encode(document)) for document in documents]}
    _emit(value, as_json, f"{text}\nRows and tables are in {folder}")


# --- one row against another --------------------------------------------------------------------------


@grit.command("compare")
@click.argument("first")
@click.argument("second")
@_json
@_debug
def compare_(first: str, second: str, as_json: bool, debug: bool) -> None:
    """Compare two rows example by example: FIRST and SECOND are run folders, rows of one, or bundles."""
    from grit.bench import compare, operands

    pairs = operands.paired(operands.rows(first), operands.rows(second))
    found = [compare.compare(one, other) for one, other in pairs]
    values = [json.loads(compare.encode(comparison)) for comparison in found]
    _emit(values, as_json, "\n\n".join(map(compare.render, found)))


def _percent(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    if not 0 <= value < 1:
        raise click.BadParameter(f"{value}: expected a ratio in [0, 1), as 0.02 for two points")
    return value


_file = click.Path(path_type=Path, dir_okay=False)


@grit.command("gate")
@click.option("--baseline", required=True, help="What stands: a run folder, one row of it, or a bundle.")
@click.option("--candidate", required=True, help="What wants its place; trained only is enough for --fast.")
@click.option("--fast", is_flag=True, help="Replay the baseline's breaks instead of comparing full runs.")
@click.option("--margin", type=float, default=0.02, show_default=True, callback=_percent, help="A loss let through.")
@click.option("--alpha", type=float, default=0.05, show_default=True, callback=_percent, help="Rate of false alarms.")
@click.option("--max-bytes", type=click.IntRange(min=1), help="Deployed bytes allowed.")
@click.option(
    "--max-instructions", multiple=True, metavar="TARGET=COUNT", help="Instructions allowed there, for the median text."
)
@click.option("--clock", is_flag=True, help="Time both in turns, here; needs --calibration.")
@click.option("--calibration", type=_file, help="What 'grit calibrate' wrote on this machine.")
@click.option("--data", "data_", help="A name or file to read instead of the data that the baseline names.")
@click.option("--junit", type=_file, help="Write JUnit XML.")
@click.option("--summary", type=_file, help="Append Markdown, as to $GITHUB_STEP_SUMMARY.")
@click.option("--benchmark", type=_file, help="Write JSON for github-action-benchmark (customSmallerIsBetter).")
@click.option("--pytest-benchmark", "timings", type=_file, help="Write the times as pytest-benchmark does.")
@click.option("--history", type=_file, help="Remember this gate in a file, and tell where numbers changed for good.")
@click.option("--label", default="", help="Name of the candidate in the history, as a commit.")
@_json
@_debug
def gate_(
    baseline: str,
    candidate: str,
    fast: bool,
    margin: float,
    alpha: float,
    max_bytes: int | None,
    max_instructions: tuple[str, ...],
    clock: bool,
    calibration: Path | None,
    data_: str | None,
    junit: Path | None,
    summary: Path | None,
    benchmark: Path | None,
    timings: Path | None,
    history: Path | None,
    label: str,
    as_json: bool,
    debug: bool,
) -> None:
    """May the candidate take the baseline's place? 0 pass, 1 fail, 3 inconclusive, 4 could not measure."""
    from grit.bench import gate, records
    from grit.bench.gate import accuracy, limits, outputs
    from grit.bench.gate import fast as replay

    allowed = limits.parse(max_instructions)
    if not Path(baseline).exists():
        raise CouldNotMeasure(f"no baseline at {baseline!r}: a gate without one lets nothing through; store one first")
    lane = replay.checks(baseline, candidate, margin, alpha, data_) if fast else None
    checks = [*(lane or accuracy.checks(baseline, candidate, margin, alpha))]
    checks += limits.checks(candidate, max_bytes, allowed)
    times: dict[str, Turns] = {}
    if clock:
        from grit.bench.gate import clock as clocks

        known = None if calibration is None else clocks.read(calibration)
        for check, turns in clocks.checks(baseline, candidate, known, data_):
            checks.append(check)
            if turns is not None:
                times[check.row] = turns
    report = gate.report(baseline, candidate, checks)
    trends = outputs.trends(outputs.remember(history, report, label)) if history else []
    if junit:
        records.write(junit, outputs.junit(report))
    if benchmark:
        records.write(benchmark, outputs.action_benchmark(report))
    if timings:
        records.write(timings, outputs.pytest_benchmark(times))
    if summary:
        earlier = summary.read_bytes() if summary.exists() else b""
        records.write(summary, earlier + outputs.markdown(report, trends).encode())
    _emit(json.loads(gate.encode(report)), as_json, "\n".join([gate.render(report), *trends]))
    sys.exit(report.code)


@grit.command()
@click.argument("model")
@click.option("--pairs", type=click.IntRange(min=2), default=50, show_default=True, help="Runs against itself.")
@click.option("--rounds", type=click.IntRange(min=5), default=30, show_default=True, help="Of all texts, a run.")
@click.option("--data", "data_", help="A name or file to read instead of the data that the record names.")
@_output
@_json
@_debug
def calibrate(
    model: str, pairs: int, rounds: int, data_: str | None, output: Path | None, as_json: bool, debug: bool
) -> None:
    """Time MODEL (one row) against itself: how far equals are apart on this machine. -o FILE keeps it for the gate."""
    from grit.bench import records
    from grit.bench.gate import clock

    found = clock.calibrate(model, pairs, rounds, data_)
    if output is not None:
        records.write(output, records.encode(found) + b"\n")
    text = (
        f"{found.row}: {pairs} pairs of equals differ by up to {100 * math.expm1(found.least):.2f} % in their medians"
    )
    _emit(json.loads(records.encode(found)), as_json, text)


# --- proof -------------------------------------------------------------------------------------------

_bundle = click.argument("bundle", type=click.Path(path_type=Path))
_sandbox = click.option(
    "--sandbox",
    type=click.Choice(["bubblewrap", "seccomp", "rlimits", "none"]),
    default="rlimits",
    show_default=True,
    help="The weakest sandbox that will do; the strongest that works here is taken. none: for a bundle of your own.",
)
_data_of = click.option("--data", "data_", help="A name or file to read instead of the data the bundle names.")


def _seeds(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in (value or "").split(",") if part.strip())
    except ValueError:
        raise click.BadParameter(f"{value!r}: expected whole numbers, with commas") from None


@grit.command()
@click.argument("operand")
@click.option("--adaptive", help="Which attacks knew the defence: the statement that the row carries.")
@click.option("--runs", type=click.IntRange(min=1), help="Runs made with this configuration, reported or not.")
@click.option("--seeds", "reported", callback=_seeds, help="Training seeds of the runs that are submitted.")
@click.option("--licence", default="unknown", show_default=True, help="Of the model's weights.")
@click.option("--supersedes", type=click.Path(path_type=Path), help="Bundle replaced. [default: OPERAND if it is one]")
@click.option("--status", type=click.Choice(["corrected", "migrated", "withdrawn"]), default="corrected")
@click.option("--reason", default="", help="Why it takes that place; a row says so for good.")
@click.option("--archive", is_flag=True, help="Write the archive beside the folder, too.")
@click.option("--records", "only_records", is_flag=True, help="No bundle: add the rows to DIR/seeds.jsonl.")
@_output
@_json
@_debug
def pack(
    operand: str,
    adaptive: str | None,
    runs: int | None,
    reported: tuple[int, ...],
    licence: str,
    supersedes: Path | None,
    status: Literal["corrected", "migrated", "withdrawn"],
    reason: str,
    archive: bool,
    only_records: bool,
    output: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Submission bundles DIR/ROW of OPERAND: a run folder, one row of it, or a bundle to correct or withdraw.

    With --records every row of a run folder is a line of DIR/seeds.jsonl: for the seeds that are no bundle.
    """
    from grit.bench import leaderboard, run, seeds, submission

    if output is None:
        raise UsageError("pack needs -o DIR: the folder that will hold the bundle's folder")
    if only_records:
        held = seeds.keep(leaderboard.load([Path(operand)]), output)
        _emit({"rows": held}, as_json, f"{output / seeds.SEEDS}: {held} row{'' if held == 1 else 's'}")
        return
    is_bundle = (Path(operand) / submission.SUBMISSION).is_file() or Path(operand).suffix == ".tar"
    if is_bundle and supersedes is None:
        supersedes = Path(operand)
    if supersedes is not None and not reason:
        raise UsageError("a bundle that takes another's place needs --reason: say what was wrong")
    old = submission.read_bundle(supersedes) if supersedes is not None else None
    life = None if old is None else submission.Life(status=status, supersedes=old.digest, reason=reason)
    packed: dict[str, dict[str, bytes]] = {}
    if is_bundle and life is not None:
        packed[Path(operand).resolve().name.removesuffix(".tar")] = submission.amended(
            submission.read_bundle(Path(operand)), life, adaptive=adaptive
        )
    else:
        for each in run.saved(operand):
            if not each.folder.evidence(each.row).is_dir():
                continue  # a teacher, which was trained and not attacked
            packed[submission.folder_name(each.row)] = submission.pack(
                each.folder,
                each.row,
                adaptive=adaptive or submission.NO_ADAPTIVE_ATTACK,
                runs=runs,
                reported=reported,
                licence=licence,
                life=life,
            )
    if not packed:
        raise UsageError(f"no row of {operand} was attacked: nothing to submit; 'grit run' attacks them")
    if life is not None and len(packed) > 1:
        raise UsageError(f"{operand} holds {len(packed)} rows, and one takes a bundle's place: name it, RUN/model/ROW")
    found = []
    for row, files in packed.items():
        name = row if life is None else f"{row}-{status}"  # the old one stays where it is
        digest = submission.write(output / name, files)
        if archive:
            (output / f"{name}.tar").write_bytes(submission.archive(files))
        found.append({"bundle": str(output / name), "sha256": digest, "bytes": sum(map(len, files.values()))})
    _emit(
        found,
        as_json,
        "\n".join(f"{each['bundle']}  {each['sha256']}\n  check it: grit verify {each['bundle']}" for each in found),
    )


@grit.command()
@_bundle
@_json
@_debug
def lint(bundle: Path, as_json: bool, debug: bool) -> None:
    """Check the files of BUNDLE (a folder or its archive): no code, no lies about bytes. Runs nothing."""
    from grit.bench import submission, verify

    _conclude(verify.verify(submission.read_bundle(bundle), verify.Setting(level="lint")), as_json)


@grit.command("verify")
@_bundle
@click.option("--level", type=click.Choice(["lint", "replay", "spot", "full"]), default="replay", show_default=True)
@_data_of
@click.option("--pool", type=click.Path(path_type=Path), help="Breaks to try, too: a pool, or rows of this dataset.")
@click.option("--spot", "m", type=click.IntRange(min=1), default=100, show_default=True, help="Survivors to attack.")
@click.option("--nonce", default="", help="Chooses the survivors. [default: drawn now]")
@click.option("--verdict", type=click.Path(path_type=Path), help="File of the verdict, reused where all holds still.")
@_sandbox
@_json
@_debug
def verify_(
    bundle: Path,
    level: Literal["lint", "replay", "spot", "full"],
    data_: str | None,
    pool: Path | None,
    m: int,
    nonce: str,
    verdict: Path | None,
    sandbox: str,
    as_json: bool,
    debug: bool,
) -> None:
    """Replay BUNDLE (a folder or its archive); attack a sample of what survived (spot) or everything (full) again."""
    from grit.bench import challenge, verify

    setting = verify.Setting(
        level=level,
        respond=verify.unguarded if sandbox == "none" else verify.Sandboxed(sandbox),
        data=data_,
        pool={} if pool is None else challenge.read_pool(pool),
        spot=m,
        nonce=nonce,
    )
    report, reused = verify.verify_path(bundle, setting, verdict)
    _conclude(report, as_json, " (an earlier verdict that still holds)" if reused else "")


def _conclude(report: Report, as_json: bool, remark: str = "") -> None:
    from grit.bench import verify

    _emit(json.loads(verify.encode(report)), as_json, verify.render(report) + remark)
    sys.exit(report.code)


@grit.command("challenge")
@_bundle
@click.argument("evidence", type=click.Path(path_type=Path, exists=True))
@_data_of
@click.option("--pool", type=click.Path(path_type=Path), help="Folder that the breaks join if they hold.")
@_sandbox
@_json
@_debug
def challenge_(
    bundle: Path, evidence: Path, data_: str | None, pool: Path | None, sandbox: str, as_json: bool, debug: bool
) -> None:
    """Try EVIDENCE (a .jsonl.gz of breaks) against what BUNDLE claims to survive; true breaks lower the row."""
    from grit.bench import challenge, submission, verify

    respond = verify.unguarded if sandbox == "none" else verify.Sandboxed(sandbox)
    setting = verify.Setting(respond=respond, data=data_)
    ruling, lines = challenge.challenge(submission.read_bundle(bundle), evidence, setting)
    if pool is not None and ruling.upheld:
        challenge.join(pool, lines)
    _emit(json.loads(challenge.encode(ruling)), as_json, challenge.render(ruling))
    sys.exit(ruling.code)
