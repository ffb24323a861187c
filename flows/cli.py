"""The command line, thin over the flows: ``voxmill run | plan | report | regenerate | export | verify | demo``.

Nothing heavy is imported before a command runs: ``--help`` answers at once.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import terminal
from flows.form import description_of
from flows.guard import guarded
from flows.options import given, listed, merge, overrides, read_config, settled, speech
from schemas import config

app = typer.Typer(
    name="voxmill",
    help="Refine archives of recorded speech into analytics-ready Parquet, with WER quality reports.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help in plain text: rendering it with rich takes three times as long as all else
)

RESUME = "Finished shards are kept: the same command goes on where this run stopped."


def _storage(name: str) -> str:
    return config.Storage.model_fields[name].description or ""


Sources = Annotated[list[str] | None, typer.Argument(help=description_of(config.Sources), show_default=False)]
Destination = Annotated[str | None, typer.Option("--destination", "-d", help=description_of(config.Destination))]
Published = Annotated[str, typer.Argument(metavar="DESTINATION", help=description_of(config.Destination))]
RunId = Annotated[str | None, typer.Argument(metavar="RUN_ID", help=description_of(config.RunId), show_default=False)]
AnyRun = Annotated[
    str | None, typer.Argument(metavar="RUN_ID", help="id of a published run; all when unset", show_default=False)
]
Compare = Annotated[
    tuple[str, str] | None,
    typer.Option("--compare", metavar="RUN_A RUN_B", help=description_of(config.Compare), show_default=False),
]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="parameters in a .yaml, .toml or .json file")]
Set = Annotated[list[str] | None, typer.Option("--set", help="any setting, such as asr.denoised=all; repeatable")]
Transcribers = Annotated[
    list[str] | None, typer.Option("--transcribers", help=description_of(config.Transcribers) + "; repeatable")
]
Tts = Annotated[str | None, typer.Option("--tts", help=description_of(config.Synthesizer))]
Voice = Annotated[str | None, typer.Option("--tts", help=description_of(config.Voice))]
Language = Annotated[str | None, typer.Option("--language", help=description_of(config.Language))]
Trust = Annotated[list[str] | None, typer.Option("--trust", help=description_of(config.Trusted) + "; repeatable")]
RayAddress = Annotated[
    str | None, typer.Option("--ray-address", help=config.Cluster.model_fields["address"].description)
]
Reprocess = Annotated[bool | None, typer.Option("--reprocess", help=description_of(config.Reprocess))]
Endpoint = Annotated[str | None, typer.Option("--endpoint-url", help=_storage("endpoint_url"))]
Region = Annotated[str | None, typer.Option("--region", help=_storage("region"))]
Profile = Annotated[str | None, typer.Option("--profile", help=_storage("profile"))]
Anonymous = Annotated[bool | None, typer.Option("--anonymous", help=_storage("anonymous"))]
Block = Annotated[str | None, typer.Option("--credentials-block", help=_storage("credentials_block"))]
Where = Annotated[str | None, typer.Option("--where", help=description_of(config.Where))]
Text = Annotated[str | None, typer.Option("--text", help=description_of(config.SpokenText))]
Voices = Annotated[list[str] | None, typer.Option("--voices", help=description_of(config.Voices) + "; repeatable")]
Hears = Annotated[str | None, typer.Option("--round-trip", help=description_of(config.RoundTrip))]
MaxWer = Annotated[float | None, typer.Option("--max-wer", help=description_of(config.MaxRoundTripWer))]
Speech = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="other settings of the speech, such as loudness_lufs=-23, or cluster.cpus=8; repeatable"
    ),
]
Folder = Annotated[str, typer.Argument(metavar="FOLDER", help=description_of(config.Folder))]
RunOption = Annotated[str | None, typer.Option("--run-id", help=description_of(config.RunId))]
Clips = Annotated[str | None, typer.Option("--clips", help=description_of(config.Clips))]
Formats = Annotated[list[str] | None, typer.Option("--formats", help=description_of(config.Formats) + "; repeatable")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="every log line, tracebacks included")]


@app.command()
def run(
    sources: Sources = None,
    destination: Destination = None,
    transcribers: Transcribers = None,
    tts: Tts = None,
    language: Language = None,
    reprocess: Reprocess = None,
    trust: Trust = None,
    ray_address: RayAddress = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
    anonymous: Anonymous = None,
    credentials_block: Block = None,
    config: Config = None,
    set_: Set = None,
    verbose: Verbose = False,
) -> None:
    """Publish tables and a report of archives. What is published already is skipped."""
    with terminal.reported(RESUME, verbose):
        form = _form(
            config, set_, sources, destination, transcribers, tts, language, reprocess, trust, ray_address,
            _reach(endpoint_url, region, profile, anonymous, credentials_block),
        )  # fmt: skip
        terminal.prepare()
        terminal.starting()
        from flows.launch import launch_corpus

        launch_corpus(form, verbose)


@app.command()
def plan(
    sources: Sources = None,
    destination: Destination = None,
    transcribers: Transcribers = None,
    tts: Tts = None,
    language: Language = None,
    reprocess: Reprocess = None,
    trust: Trust = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
    anonymous: Anonymous = None,
    credentials_block: Block = None,
    config: Config = None,
    set_: Set = None,
    verbose: Verbose = False,
) -> None:
    """Show what a run would do. Reads no audio beyond headers and writes nothing."""
    with terminal.reported(verbose=verbose):
        form = _form(
            config, set_, sources, destination, transcribers, tts, language, reprocess, trust, None,
            _reach(endpoint_url, region, profile, anonymous, credentials_block),
        )  # fmt: skip
        terminal.prepare()
        from flows.launch import launch_plan

        launch_plan(form, verbose)


@app.command()
def report(
    destination: Published,
    run_id: RunId = None,
    compare: Compare = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
    anonymous: Anonymous = None,
    credentials_block: Block = None,
    verbose: Verbose = False,
) -> None:
    """Build the quality report of a published run again, or compare two runs."""
    with terminal.reported(verbose=verbose):
        storage = _reach(endpoint_url, region, profile, anonymous, credentials_block)
        terminal.prepare()
        from flows.launch import launch_report

        form = {"destination": destination, "run_id": run_id, "compare": compare, "storage": storage}
        launch_report(given(form), verbose)


@app.command()
def regenerate(
    destination: Published,
    run_id: RunId = None,
    tts: Voice = None,
    where: Where = None,
    text: Text = None,
    voices: Voices = None,
    round_trip: Hears = None,
    max_wer: MaxWer = None,
    set_: Speech = None,
    trust: Trust = None,
    ray_address: RayAddress = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
    anonymous: Anonymous = None,
    credentials_block: Block = None,
    verbose: Verbose = False,
) -> None:
    """Speak a published run's texts afresh; hear the result and compare."""
    with terminal.reported(RESUME, verbose):
        form = {
            "destination": destination,
            "run_id": run_id,
            "tts": tts,
            "where": where,
            "text": text,
            "voices": listed(voices),
            "round_trip": round_trip,
            "max_wer": max_wer,
            "trusted": listed(trust),
            "cluster": {"address": ray_address},
            "storage": _reach(endpoint_url, region, profile, anonymous, credentials_block),
        }
        terminal.prepare()
        terminal.starting()
        from flows.launch import launch_regenerate

        launch_regenerate(merge(given(form), speech(set_ or [])), verbose)


@app.command()
def export(
    destination: Published,
    folder: Folder,
    clips: Clips = None,
    run_id: RunOption = None,
    where: Where = None,
    text: Text = None,
    formats: Formats = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
    anonymous: Anonymous = None,
    credentials_block: Block = None,
    verbose: Verbose = False,
) -> None:
    """Write a published run's clips out with the manifests that NeMo, Hugging Face and Lhotse train from."""
    with terminal.reported(verbose=verbose):
        form = {
            "destination": destination,
            "folder": folder,
            "clips": clips,
            "run_id": run_id,
            "where": where,
            "text": text,
            "formats": listed(formats),
            "storage": _reach(endpoint_url, region, profile, anonymous, credentials_block),
        }
        terminal.prepare()
        from flows.launch import launch_export

        launch_export(given(form), verbose)


@app.command()
def verify(
    destination: Published,
    run_id: AnyRun = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
    anonymous: Anonymous = None,
    credentials_block: Block = None,
    verbose: Verbose = False,
) -> None:
    """Check published runs. Every file there with its rows and bytes, counts that add up, nothing left over."""
    with terminal.reported(verbose=verbose):
        terminal.prepare()
        from tasks.verify import unfinished
        from tasks.verify import verify as check
        from tasks.wording import count
        from workers.storage import absolute_url

        reach = given(_reach(endpoint_url, region, profile, anonymous, credentials_block))
        root, storage = absolute_url(destination), _settings().Storage(**reach)
        with _access(storage):
            manifests, wrong = check(root, run_id, storage)
            left = [] if run_id else unfinished(root, storage)
        for line in left:
            terminal.console().print(f"Note: {line}.", soft_wrap=True, markup=False)
        if wrong:
            terminal.fail(*wrong)
        if not manifests:
            terminal.fail(f"{destination}: no run is published here")
        files = sum(len(manifest.files) for manifest in manifests)
        terminal.console().print(f"{count(len(manifests), 'run')}, {count(files, 'file')}: all as the manifests say.")


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="where to make the demo corpus and publish its tables")] = Path("demo"),
    reprocess: Reprocess = None,
    minutes: Annotated[float | None, typer.Option(help="length of the demo corpus, minutes of audio", min=0.5)] = None,
    verbose: Verbose = False,
) -> None:
    """Run it all on a small corpus. Corpus and checkpoints come along; no network is needed."""
    with terminal.reported("voxmill demo goes on where this run stopped.", verbose):
        root = folder.expanduser().absolute()
        terminal.prepare(root / "prefect")
        terminal.starting()
        from flows.demo import demo_form
        from flows.launch import begin, launch_corpus

        begin(verbose)
        launch_corpus(demo_form(root, bool(reprocess), minutes), verbose)


def _access(storage: config.Storage) -> AbstractContextManager[None]:
    """With the credentials of a Prefect block, where one is named; Prefect is not imported otherwise."""
    if not storage.credentials_block:
        return nullcontext()
    from flows.credentials import access

    return access(storage)


def _settings() -> Any:
    """The settings' module, from inside commands whose parameter ``config`` hides its name."""
    return config


def _reach(*values: Any) -> dict[str, Any]:
    return dict(zip(("endpoint_url", "region", "profile", "anonymous", "credentials_block"), values, strict=True))


def _form(
    file: Path | None,
    settings: list[str] | None,
    sources: list[str] | None,
    destination: str | None,
    transcribers: list[str] | None,
    tts: str | None,
    language: str | None,
    reprocess: bool | None,
    trust: list[str] | None,
    ray_address: str | None,
    storage: dict[str, Any],
) -> dict[str, Any]:
    """The flow's parameters from a file, flags and ``--set``, later ones winning."""
    flags = {
        "sources": sources or None,
        "destination": destination,
        "transcribers": listed(transcribers),
        "tts": tts,
        "language": language,
        "reprocess": reprocess,
        "trusted": listed(trust),
        "cluster": {"address": ray_address},
        "storage": storage,
    }
    return settled(merge(read_config(file) if file else {}, given(flags)), overrides(settings or []))


def main() -> None:
    """Entry point of the console script."""
    guarded(app)


if __name__ == "__main__":
    main()
