"""The `packhouse` command: data on stdout, talk on stderr.

Exit statuses: 0 done; 1 refused; 2 unavailable, try again; 3 nothing to do; 64 wrong usage; 70 a fault of packhouse;
130 interrupted; 143 terminated.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from packhouse import __version__, exit_status
from packhouse.consume.fetch import fetch, home
from packhouse.digest import digest_bytes, short
from packhouse.errors import KeyAbsent, NotFound, Refused, ReleaseInvalid, SignatureInvalid, SpecInvalid, printable
from packhouse.parity.latency import TIMING_HEADINGS, timing_cells
from packhouse.release import channels
from packhouse.release.lookup import Found, at_prefix, listing, named_channel, read_channel
from packhouse.release.lookup import channels as named_channels
from packhouse.release.manifest import MAX_SERIAL, PRODUCTION, REPORT_JSON, Channel, Why, dump, load
from packhouse.release.promotion import insist
from packhouse.report.model import HEADINGS, Report, cautions, cells, reads, size
from packhouse.spec.model import SPEC_FILE, read
from packhouse.store import Retrying, Store, guard, open_store, probe
from packhouse.training.staging import stage_folder
from packhouse.trust.dsse import PublicKey, make_keys
from packhouse.trust.signatures import Trusted, check_release, known
from packhouse.trust.signed_channels import behind as reason_behind
from packhouse.trust.signed_channels import find_trusted, standing
from packhouse.trust.verify import read_manifest, read_spec, verify

NAMED = 5
"""Keys that fit nowhere of which `ls` says the name."""
TYPERS = {2: exit_status.USAGE, 1: exit_status.UNAVAILABLE}
"""What typer ends with: wrong usage, and output that nobody reads any more."""
app = typer.Typer(
    name="packhouse",
    help="From trained PyTorch weights to a verified release.",
    epilog="Exit statuses: 0 done, 1 refused, 2 unavailable (try again), 3 nothing to do, 64 wrong usage, "
    "70 a fault of packhouse (packhouse --verbose COMMAND shows the traceback), 130 interrupted, 143 terminated.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
talk = Console(stderr=True, highlight=False, soft_wrap=True)

StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="PACKHOUSE_STORE",
        help="Where releases are: a folder, file:///path or s3://bucket/prefix. Default: $PACKHOUSE_HOME/store.",
    ),
]
TrustOption = Annotated[
    list[Path],
    typer.Option(
        "--trust",
        envvar="PACKHOUSE_TRUST",
        help="Whose signature a release must have: a public key or certificates in PEM, or a policy in TOML. May be "
        "given again. Without it, signatures are not looked at.",
    ),
]
ReleaseArgument = Annotated[str, typer.Argument(help="model@channel, model/release, or the folder of a release.")]
StoredArgument = Annotated[str, typer.Argument(help="model@channel or model/release.")]


def the_store(url: str) -> Store:
    return Retrying(open_store(url or str(home() / "store")))


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="For a fault of packhouse, its traceback.")] = False,
) -> None:
    """From trained PyTorch weights to a verified release."""


@app.command()
def stage(
    folder: Annotated[
        Path, typer.Argument(help="Holds package.toml, the weights and the samples.", exists=True, file_okay=False)
    ],
    to: Annotated[str, typer.Option("--to", help="A folder or s3:// prefix, one for each training run.")],
    announce: Annotated[
        str,
        typer.Option(
            help="The Prefect API to tell, so that the release starts at once; `off`: nobody.", envvar="PREFECT_API_URL"
        ),
    ] = "",
) -> None:
    """Hand a trained model over: fill in digests, upload the files, package.toml last. Prints the source's URL."""
    draft = folder / SPEC_FILE
    if not draft.is_file():
        raise SpecInvalid("PH-0127 is not there", where=str(draft), next="docs/spec.md shows one")
    data = draft.read_bytes()
    document = read(data, where=str(draft))
    staged = stage_folder(folder, document, to=to, text=data.decode(), announce_to=announce)
    for note in staged.notes:
        talk.print(note, markup=False)
    print(staged.url)


@app.command()
def release(
    context: typer.Context,
    sources: Annotated[list[str], typer.Argument(help="Folders or s3:// prefixes that `packhouse stage` wrote.")],
    channel: Annotated[str, typer.Option(help="The name that moves to the new release.")] = "latest",
    store: StoreOption = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a model on stdout.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Every stage on stderr, and Prefect's own log.")
    ] = False,
) -> None:
    """Release models: export, check, publish. Prints one line a model: outcome, model, release or reason."""
    flags = {"--json": as_json, "--verbose": verbose or bool(context.parent and context.parent.params["verbose"])}
    arguments = ["--channel", channel, *(flag for flag, on in flags.items() if on), "--", *sources]
    worker(["-m", "flows", *arguments], store)


@app.command("verify")
def verify_command(release: ReleaseArgument, store: StoreOption = "", trust: TrustOption = []) -> None:
    """Prove a release from its bytes alone: digests, then every format on the golden inputs, without model code. With
    --trust, also who signed it."""
    trusted = Trusted.asked(trust)
    found = resolve(release, store, trusted)
    with talk.status(f"verifying {release}"):
        proven = verify(found, trusted)
    formats = " ".join(proven.formats)
    signed = f" signed by {proven.signed_by}" if trusted else ""
    words = f"{proven.model}/{proven.release} record {short(proven.record)} {proven.files} files {formats}{signed}"
    print(f"verified {words}")


@app.command()
def sign(
    releases: Annotated[
        list[str], typer.Argument(help="model/release; or model@channel: the channel, of a release that is signed.")
    ] = [],
    renew: Annotated[bool, typer.Option("--renew", help="Also every channel whose signature is due.")] = False,
    store: StoreOption = "",
) -> None:
    """Sign releases that are in the store, and channels as they stand, by the key of PACKHOUSE_SIGNING_KEY: after all
    digests were checked, also what is signed already."""
    if not (releases or renew):
        raise typer.BadParameter("name a release or a channel, or say --renew")
    worker(["-m", "flows.sign", *(["--renew"] if renew else []), "--", *releases], store)


@app.command()
def keys(
    folder: Annotated[Path, typer.Argument(help="Gets signing.pem, which is secret, and signing.pub.pem.")],
) -> None:
    """Make a pair of keys to sign releases with: ECDSA on P-256. Never overwrites one."""
    for path in make_keys(folder):
        print(path)


@app.command()
def show(
    release: ReleaseArgument,
    store: StoreOption = "",
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    latency: Annotated[
        bool, typer.Option("--latency", help="Instead, every latency by format, batch size and threads.")
    ] = False,
) -> None:
    """Show a release's report: formats, sizes, latency, parity, accuracy, verdicts."""
    found = resolve(release, store)
    data = found.document(REPORT_JSON)
    report = load(Report, data, where=REPORT_JSON)
    manifest = read_manifest(found, found.record)
    if (report.model, report.release) != (manifest.model, manifest.release):
        raise ReleaseInvalid("PH-0126 is of another release", where=REPORT_JSON, got=f"{report.model}/{report.release}")
    if as_json:
        sys.stdout.write(data.decode())
        return
    if latency:
        print_latency(report)
        return
    print_report(report)
    for artifact in manifest.artifacts:
        print(f"{artifact.digest.removeprefix('sha256:')}  {artifact.name}  {size(artifact.size)}")
    if image := found.record.image:
        print(image.reference)


@app.command()
def ls(
    model: Annotated[str, typer.Argument(help="Only this model's releases.")] = "",
    store: StoreOption = "",
) -> None:
    """List releases, one a line: model/release, the channels that point at it, and whether it is held or was deleted.
    What is nobody's is named on stderr."""
    found = listing(the_store(store), model)
    entries = sorted((*found.releases, *found.deleted), key=lambda entry: (entry.model, entry.release))
    for entry in entries:
        print(entry.words)
    for key in found.strange[:NAMED]:
        talk.print(printable(f"{key}: is nobody's, and is left alone"), markup=False)
    if (more := len(found.strange) - NAMED) > 0:
        talk.print(f"and {more} more that are nobody's")
    if not entries:
        talk.print(f"no releases{f' of {model}' if model else ''} in {the_store(store).url}")
        raise typer.Exit(3)


ByOption = Annotated[
    str, typer.Option("--by", envvar="USER", help="Who does it; stands in the channel's history. Default: $USER.")
]


@app.command()
def promote(
    release: StoredArgument,
    channel: Annotated[str, typer.Argument(help="The channel that moves to it, such as production.")],
    by: Annotated[str, typer.Option("--by", help="Who does it; needed where the spec asks for approval.")] = "",
    after: Annotated[
        int,
        typer.Option(
            "--after",
            min=0,
            max=MAX_SERIAL - 1,
            help="Start the channel anew behind this serial: its file was lost, or written into.",
        ),
    ] = 0,
    trust: TrustOption = [],
    store: StoreOption = "",
) -> None:
    """Move a channel to a release, with --trust to a signed one only. Where its spec says `approve = true`, moving
    `production` so is the approval, and --by says whose. Where there is a key to sign with, the channel is signed. The
    image's tag and MLflow's alias follow with the next run or audit."""
    place, trusted = the_store(store), Trusted.asked(trust)
    found = find_trusted(place, release, trusted)
    record = found.record
    if trusted:
        check_release(found, read_manifest(found, record), trusted)
        if after:
            seen, _ = standing(place, record.model, channel, trusted)
            if seen and seen.serial > after:
                where, got = f"{record.model}@{channel}", f"--after {after}"
                raise Refused("PH-0125 a later serial is signed", where=where, got=got, want=f"--after {seen.serial}")
    spec = read_spec(found)
    insist(place, record.model, channel, getattr(spec, "promotion", None))
    if channels.guarded(spec.gates.approve, channel) and not by:
        where = f"{record.model}@{channel}"
        raise Refused("PH-0124 a person must approve this release", where=where, next="--by says who does")
    who = by or os.environ.get("USER", "")
    why = Why.APPROVAL if by and channel == PRODUCTION else Why.PROMOTE

    def decide(here: Channel | None) -> channels.Answer:
        if after:
            return channels.anew(record.release, after=after, by=who)
        return channels.by_hand(here, record.release, by=who, why=why)

    moved(place, record.model, channel, decide, trusted=trusted, whatever=bool(after))


@app.command()
def rollback(
    channel: Annotated[str, typer.Argument(help="model@channel.")],
    to: Annotated[str, typer.Option("--to", help="The id of the release; default: the one before this one.")] = "",
    by: ByOption = "",
    trust: TrustOption = [],
    store: StoreOption = "",
) -> None:
    """Move a channel back to a release that it pointed at before; with --trust only where its history is signed. No run
    moves it to the one that it left again."""
    model, name = channel_of(channel)
    place = the_store(store)
    seen = read_channel(place, model, name).serial

    def decide(here: Channel | None) -> channels.Answer:
        return channels.rolled_back(here, to, by=by, where=channel, seen=seen)

    moved(place, model, name, decide, trusted=Trusted.asked(trust))


@app.command()
def history(
    channel: Annotated[str, typer.Argument(help="model@channel.")],
    store: StoreOption = "",
) -> None:
    """Show a channel's moves, the latest first: serial, release, when, why and by whom."""
    model, name = channel_of(channel)
    for move in channels.history(read_channel(the_store(store), model, name)):
        print(channels.line(move))


@app.command("channels")
def channels_command(
    model: Annotated[str, typer.Argument(help="Only this model's channels.")] = "",
    trust: TrustOption = [],
    store: StoreOption = "",
) -> None:
    """List channels: where each points, and until when its signature counts. With --trust, exit status 1 where any is
    not signed as it stands by somebody trusted, has expired, or was to be renewed and is not: for your monitoring."""
    place, trusted, behind = the_store(store), Trusted.asked(trust), 0
    listed = named_channels(place, model)
    for owner, name in listed:
        words, why = looked_at(place, owner, name, trusted)
        if words:
            print(words)
        if why:
            talk.print(f"{owner}@{name}: {why}", markup=False)
            behind += 1
    if not listed:
        talk.print(f"no channels{f' of {model}' if model else ''} in {place.url}")
        raise typer.Exit(3)
    if behind and trusted:
        raise SignatureInvalid(f"PH-0123 {behind} of {len(listed)} channels are not signed as they stand")


@app.command("fetch")
def fetch_command(
    release: StoredArgument,
    destination: Annotated[Path, typer.Argument(help="The folder that it becomes; not there yet, or this release.")],
    format: Annotated[
        list[str], typer.Option("--format", help="Only what a server needs of this format; may be given again.")
    ] = [],
    floor: Annotated[
        int, typer.Option("--floor", help="The least serial that the channel may have; more is remembered.", min=0)
    ] = 0,
    trust: TrustOption = [],
    store: StoreOption = "",
) -> None:
    """Download a release for use: every byte checked, the folder whole or not there. Prints the folder. A channel that
    shows an older serial than it did here before is refused."""
    fetched = fetch(
        release,
        destination,
        store=store or str(home() / "store"),
        trust=trust,
        floor=floor,
        formats=format,
    )
    talk.print(f"{fetched.release}: {fetched.got} files fetched, {fetched.kept} were there", markup=False)
    if fetched.late:
        talk.print(f"{release}: {fetched.late}", markup=False)
    print(fetched.folder)


@app.command()
def doctor(store: StoreOption = "") -> None:
    """Find out what the store keeps of its promises, and what packhouse therefore does."""
    place = open_store(the_store(store).url)
    found = probe(place)
    table = Table("promise", "kept", title=place.url)
    for name, kept in vars(found).items():
        table.add_row(name.replace("_", " "), "yes" if kept else "no")
    Console().print(table)
    guard(place, found)


@app.command()
def demo(store: StoreOption = "") -> None:
    """Train three small models, release them end to end, verify and load them back, show the reports."""
    worker([str(worker_root() / "examples" / "demo.py")], store)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def looked_at(store: Store, model: str, channel: str, trusted: Trusted | None) -> tuple[str, str]:
    """Where it points and until when that counts; and why somebody should look after it. Without `trusted` whatever
    says that it is a signature is shown as one."""
    pointer, _ = standing(store, model, channel, trusted)
    try:
        here = read_channel(store, model, channel)
    except Refused as error:
        return "", str(error)
    until = f"signed until {pointer.expires:%Y-%m-%dT%H:%MZ}" if pointer else "not signed"
    name = f"{model}@{channel}"
    why = reason_behind(here, pointer, name=name, now=datetime.now(UTC)) if pointer or trusted else ""
    return f"{name}#{here.serial} {here.release} {until}", why


def channel_of(text: str) -> tuple[str, str]:
    """Raises NotFound: it names no channel."""
    if named := named_channel(text):
        return named
    raise NotFound("PH-0122 names no channel", where=text[:80], want="model@channel")


def moved(
    store: Store,
    model: str,
    channel: str,
    decide: Callable[[Channel | None], channels.Answer],
    *,
    trusted: Trusted | None,
    whatever: bool = False,
) -> None:
    """Moves it, says where it stands, and has it signed where there is a key; exit status 3 where it stays.

    trusted: whose signature the channel must have as it stands, since what a history says may be anybody's. whatever:
    the channel starts anew, whatever stands there. Raises SignatureInvalid."""
    signs, name = signs_here(), f"{model}@{channel}"
    if signs and not trusted:
        trusted = known_here()

    def decided(here: Channel | None) -> channels.Answer:
        if trusted and here and not whatever:
            pointer, _ = standing(store, model, channel, trusted)
            if pointer is None or pointer.here != here:
                next = f"if `packhouse history {name}` is as you meant it, `packhouse sign {name}`, and again"
                raise SignatureInvalid("PH-0118 is not signed as it stands", where=name, next=next)
        return decide(here)

    here, answer = channels.change(store, model, channel, decided, whatever=whatever)
    assert here
    print(f"{model}/{here.release} {channel}#{here.serial}")
    if isinstance(answer, channels.Stays):
        raise typer.Exit(3)
    if signs:
        written = "" if whatever else f"#{digest_bytes(dump(here)).removeprefix('sha256:')}"
        worker(["-m", "flows.sign", "--moved", "--", f"{name}/{here.release}{written}"], store.url)
    pointer, _ = standing(store, model, channel)
    if pointer and pointer.here != here:
        words = f"who asks for signatures stays at #{pointer.serial} until `packhouse sign {name}`"
        talk.print(words, markup=False)


def signs_here() -> bool:
    """Whether there is a key to sign with, here or in a pool. Raises Refused, KeyAbsent: it can not be done, which
    whoever moves a channel should know before it has moved."""
    key = os.environ.get("PACKHOUSE_SIGNING_KEY", "")
    keyless = os.environ.get("PACKHOUSE_SIGNING_KEYLESS", "").lower() in ("1", "true", "yes", "on", "t", "y")
    if not (key or keyless or os.environ.get("PACKHOUSE_SIGN_POOL")):
        return False
    worker_root()
    if key and not os.access(Path(key).expanduser(), os.R_OK):
        raise KeyAbsent("PH-0121 is not there, or may not be read", where="PACKHOUSE_SIGNING_KEY")
    return True


def known_here() -> Trusted:
    """Whose signatures this machine's settings know, as infra.worker.signer.known says it for a worker.

    Raises KeyAbsent: nobody's. SpecInvalid: a setting is no JSON, or names no key."""
    key, chain = os.environ.get("PACKHOUSE_SIGNING_KEY", ""), listed_in("PACKHOUSE_SIGNING_CERTIFICATES")
    own = Trusted()
    if key and not chain:
        password = os.environ.get("PACKHOUSE_SIGNING_PASSWORD", "").encode() or None
        own = Trusted(keys=(PublicKey(Path(key).expanduser(), private=True, password=password),))
    return known([*listed_in("PACKHOUSE_SIGNERS"), *(chain[1:] or chain)], own)


def listed_in(name: str) -> list[str]:
    try:
        return [str(each) for each in json.loads(os.environ.get(name) or "[]")]
    except (ValueError, TypeError) as error:
        raise SpecInvalid("PH-0120 is no list in JSON", where=name) from error


def resolve(reference: str, store: str, trusted: Trusted | None = None) -> Found:
    """A folder or URL that holds record.json, else a name in the store."""
    is_folder = os.path.isdir(reference)  # noqa: PTH112 - Path.is_dir raises where a name is too long for a folder
    if "://" in reference or reference.startswith((".", "/", "~")) or is_folder:
        url = reference if "://" in reference else str(Path(reference).expanduser())
        return at_prefix(Retrying(open_store(url)), "")
    return find_trusted(the_store(store), reference, trusted)


def print_report(report: Report) -> None:
    print_table(f"{report.model} {report.release}", HEADINGS, map(cells, report.rows))
    for row in report.rows:
        if row.onnx:
            print(f"{row.format}: {reads(row.onnx)}")


def print_latency(report: Report) -> None:
    title = f"{report.model} {report.release} on {report.processor}"
    print_table(title, TIMING_HEADINGS, map(timing_cells, report.latency))
    for line in cautions(report):
        talk.print(printable(line), markup=False)


def print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*headings, title=Text(printable(title)), title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def worker_root() -> Path:
    """Where the worker's code lies: flows, tasks and infra are run from the repository and are not in the wheel."""
    candidates = [
        Path(os.environ.get("PACKHOUSE_WORKER", "")),
        Path(__file__).resolve().parent.parent.parent,
        Path.cwd(),
    ]
    for root in candidates:
        if (root / "flows" / "__main__.py").is_file():
            return root
    raise Refused(
        "PH-0119 the worker's code is not here", next="run in a clone of the repository, or set PACKHOUSE_WORKER to one"
    )


def worker(arguments: list[str], store: str) -> NoReturn:
    """Becomes the worker: another program, since this one is to stay small enough for every training environment."""
    root = worker_root()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))}
    environment |= {"PACKHOUSE_HOME": str(home())} | ({"PACKHOUSE_STORE": store} if store else {})
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *arguments], environment)  # noqa: S606


def main() -> None:
    """The entry point. Every end has a status and one line."""
    exit_status.end_in_order()
    try:
        app()
    except SystemExit as end:
        sys.exit(TYPERS.get(end.code, end.code) if isinstance(end.code, int) else end.code)
    except BaseException as error:  # whatever it is, it has a status
        sys.exit(exit_status.said(error, verbose=not exit_status.VERBOSE.isdisjoint(sys.argv[1:])))
