"""The configuration of a corpus run: typed, bounded, described. Field descriptions become the form in Prefect's UI.

:class:`Recipe` is everything that a row's content depends on; its fingerprint, with the digests of local checkpoints,
is part of every shard's id. What only decides where and how fast a run goes stands outside it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from schemas.families import translators
from schemas.ids import stable_id
from schemas.spec import EngineSpec, SynthesizerSpec, TranscriberSpec
from schemas.version import SCHEMA_VERSION

# Parameters that people set often stand at the top of a flow's form as well: one type, bound and description for both.
Sources = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    Field(min_length=1, description="URLs: archives, folders, recordings, manifests, globs"),
]
Destination = Annotated[str, Field(min_length=1, description="URL of the folder the tables are published under")]
Transcribers = Annotated[
    tuple[TranscriberSpec, ...],
    AfterValidator(lambda specs: tuple(dict.fromkeys(specs))),  # one that is there twice would agree with itself
    Field(min_length=1, description="engine specs, family:model; the first one's transcript is the chosen one"),
]
Language = Annotated[str | None, Field(description="language of recordings that name none; detected when unset")]
Synthesizer = Annotated[
    SynthesizerSpec | None,
    BeforeValidator(lambda spec: None if spec == "none" else spec),
    Field(description="voice engine spec; none: nothing is regenerated"),
]
Voices = Annotated[tuple[str, ...], Field(description="voices dealt to speakers; empty: the spec's own voice")]
Reprocess = Annotated[bool, Field(description="process again what is already published for the same settings")]
RunId = Annotated[str | None, Field(description="id of a published run; the latest with utterances when unset")]
Compare = Annotated[
    tuple[str, str] | None,
    Field(description="ids of two published runs: a page on what changed from the first to the second"),
]
Where = Annotated[
    str | None,
    Field(description="SQL condition over utterances (and transcripts, in subqueries) that chooses; all when unset"),
]
SpokenText = Annotated[
    Literal["reference", "transcript", "either"],
    Field(description="text to speak: the reference, the chosen transcript, or the first of them that there is"),
]
RoundTrip = Annotated[
    TranscriberSpec | None,
    Field(description="engine that hears what was spoken; the last of the run's transcribers when unset"),
]
Clips = Annotated[
    Literal["original", "denoised", "regenerated"],
    Field(description="clips to export: as recorded, denoised, or spoken afresh (those kept, unless where says else)"),
]
Folder = Annotated[str, Field(min_length=1, description="URL of the folder to write clips and manifests into")]
Formats = Annotated[
    tuple[Literal["nemo", "huggingface", "lhotse"], ...],
    Field(min_length=1, description="manifests to write: nemo, huggingface, lhotse"),
]
Voice = Annotated[SynthesizerSpec, Field(description="voice engine spec, such as espeak:en-us")]
MaxRoundTripWer = Annotated[
    float, Field(ge=0, allow_inf_nan=False, description="round-trip WER up to which a clip is marked kept")
]
Trusted = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    Field(
        description="paths, URLs, folders or names that checkpoints which can run code (.nemo) may be loaded from; "
        "NVIDIA's published names always may"
    ),
]
MaxFileMb = Annotated[int, Field(ge=1, le=4096, description="size that published files are compacted to, MB")]


class Settings(BaseModel):
    """Base of all settings: unknown names are refused, values are frozen. JSON has no infinity, so there is none.
    Names may be numbers, as of profiles and voices."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True)


class AudioSettings(Settings):
    """What a recording is turned into before anything else happens to it."""

    sample_rate: int = Field(16_000, ge=8_000, le=48_000, description="working sample rate of all stages, Hz")
    channels: Literal["mix", "each"] = Field("mix", description="mono mix, or every channel as utterances of its own")
    min_s: float = Field(0.05, ge=0, description="shorter recordings are rejected (too_short), seconds")
    max_hours: float = Field(
        6.0, gt=0, le=168,
        description="longer recordings are rejected (too_long), hours; each takes about 1 GB of a worker's memory",
    )  # fmt: skip
    max_member_mb: int = Field(2048, gt=0, description="larger members are rejected (member_too_large), MB as stored")
    silence_dbfs: float = Field(-70.0, le=0, description="recordings that never peak above are rejected (silent)")
    decode_timeout_s: float = Field(120.0, gt=0, description="seconds one recording may take to decode, plus a tenth "
                                    "of its duration")  # fmt: skip


class SegmentationSettings(Settings):
    """Cutting of recordings longer than one window by voice activity (silero).

    Silero's own defaults (threshold 0.5, 0.25 s) lost 14 of 1,000 short words that stood alone between pauses, these
    none, and took no more noise for speech: what is lost here is lost, what is too much the engines' guards stop.
    """

    window_s: float = Field(30.0, ge=5, le=30, description="longest utterance; longer recordings are cut, seconds")
    threshold: float = Field(0.4, gt=0, lt=1, description="speech probability above which a frame is speech")
    min_speech_s: float = Field(0.1, ge=0, description="shorter bursts are not speech, seconds")
    min_silence_s: float = Field(0.3, ge=0, description="pauses at least this long may be cut at, seconds")
    pad_s: float = Field(0.2, ge=0, le=1, description="kept before and after speech, seconds")


class DenoiseSettings(Settings):
    """Spectral gating as in noisereduce; what ``audio`` and ``features`` hold and the ``denoised`` input is."""

    method: Literal["spectral_gate", "none"] = "spectral_gate"
    stationary: bool = Field(False, description="one noise floor for the whole utterance instead of a running one")
    prop_decrease: float = Field(1.0, ge=0, le=1, description="share of the noise to take away")


class FeatureSettings(Settings):
    """Log-mel features: a product for training and analysis, not an input to the engines."""

    n_fft: int = Field(1024, ge=64, le=8192, description="FFT window, samples")
    hop_length: int = Field(256, ge=16, le=4096, description="samples between frames")
    n_mels: int = Field(80, ge=8, le=256, description="mel bands")
    f_min: float = Field(0.0, ge=0, description="lowest band edge, Hz")
    f_max: float | None = Field(None, gt=0, description="highest band edge, Hz; half the sample rate when unset")
    source: Literal["denoised", "raw"] = Field("denoised", description="audio that features are taken from")

    @model_validator(mode="after")
    def _measures_something(self) -> FeatureSettings:
        if self.hop_length > self.n_fft:
            raise ValueError(
                f"hop_length is {self.hop_length}, over n_fft = {self.n_fft}: samples would be passed over"
            )
        if self.n_mels > self.n_fft // 2:
            raise ValueError(f"n_mels is {self.n_mels}, more than half of n_fft = {self.n_fft}: bands would be empty")
        if self.f_max is not None and self.f_min >= self.f_max:
            raise ValueError(f"f_min is {self.f_min:g} Hz, not below f_max = {self.f_max:g} Hz")
        return self


class AsrSettings(Settings):
    """Transcription: the first engine's transcript is the chosen one; a second engine gives agreement."""

    transcribers: Transcribers = ("whisper:large-v3", "conformer:stt_en_conformer_ctc_large")
    language: Language = None
    denoised: Literal["referenced", "all", "none"] = Field(
        "referenced", description="utterances also transcribed from their denoised audio, to measure what it does"
    )
    chosen_input: Literal["raw", "denoised", "auto"] = Field(
        "raw",
        description="audio the chosen transcript is heard from. auto: everything is heard from both, and the denoised "
        "audio is chosen where the run's own references show that it lowers the first engine's WER",
    )
    beam_size: int | None = Field(None, ge=1, le=16, description="beam for autoregressive engines; greedy when unset")
    normalizer: Literal["whisper", "basic"] = Field(
        "whisper",
        description="how texts are made alike before scoring. whisper: its English rules for English (spellings; "
        "numbers: one two becomes 12), its basic ones elsewhere. basic: case and punctuation only, in every language",
    )
    word_timestamps: bool = Field(False, description="word times and probabilities in transcripts")
    silence_guard: bool = Field(
        True,
        description="a text is taken back where voice activity detection hears no speech at all in its clip; "
        "in clips under 2 s only an unsure one",
    )
    task: Literal["transcribe", "translate"] = Field(
        "transcribe",
        description="translate: Whisper writes English, whatever is spoken; references must be English too",
    )
    initial_prompt: str | None = Field(
        None, max_length=2000, description="names and terms to expect, told to Whisper before every window"
    )
    whisper_window: Literal["full", "fitted"] = Field(
        "full",
        description="what Whisper encodes of a short utterance. full: 30 s, as it was trained. fitted: little more "
        "than the utterance, several times faster; texts may differ",
    )
    compression_ratio_threshold: float | None = Field(
        2.4,
        gt=0,
        description="a window of Whisper's whose text compresses by more loops, and is decoded again. Speech of few "
        "different words, such as long numbers read out digit by digit, needs more",
    )
    logprob_threshold: float | None = Field(
        -1.0, le=0, description="a window of Whisper's with a lower mean log-probability is decoded again"
    )
    no_speech_threshold: float | None = Field(
        0.6,
        ge=0,
        le=1,
        description="a window of Whisper's that is silent with more probability, and below logprob_threshold, is empty",
    )
    fallback_temperatures: tuple[Annotated[float, Field(gt=0, le=2)], ...] = Field(
        (0.2, 0.4, 0.6, 0.8, 1.0),
        description="temperatures at which Whisper decodes a window again, one after the other until it passes",
    )
    compute_type: Literal["int8", "int8_float16", "float16", "float32"] | None = Field(
        None, description="arithmetic of faster-whisper; float16 on a GPU and int8 on a CPU when unset"
    )

    @property
    def cannot_translate(self) -> list[str]:
        """The transcribers that are to translate and cannot. Empty in a run's settled parameters: a form's short
        fields come into the recipe after it was checked."""
        others = [spec for spec in self.transcribers if EngineSpec.parse(spec).family not in translators()]
        return others if self.task == "translate" else []

    @property
    def first_input(self) -> Literal["raw", "denoised"]:
        """What the chosen transcript is heard from before a run's evidence is in: with ``auto``, the raw audio."""
        return "denoised" if self.chosen_input == "denoised" else "raw"


OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)  # RFC 6716, 2: the rates that Opus knows, Hz


class TtsSettings(Settings):
    """Regeneration of clean speech and its round trip through a transcriber."""

    # A secret that was put where its name belongs must not be told again by the error that refuses it.
    model_config = ConfigDict(hide_input_in_errors=True)

    synthesizer: Synthesizer = None
    round_trip: RoundTrip = None
    voices: Voices = ()
    voices_per_clip: int = Field(1, ge=1, le=64, description="voices that speak each utterance, one row for each")
    voice_key: str | None = Field(
        None,
        pattern=r"^(env|block):[A-Za-z_][A-Za-z0-9_-]*$",
        description="where the secret key lies that voices are dealt with, so that nobody else can tell who has which: "
        "env:NAME, an environment variable, or block:NAME, a Secret block in Prefect. Never the key itself",
    )
    speaker_labels: bool = Field(True, description="the speakers' own labels in regenerated; no: the column is null")
    normalize: bool = Field(True, description="numbers and abbreviations are written out before they are spoken")
    rate: float = Field(1.0, ge=0.25, le=4.0, description="speaking rate; 1 is the voice's own")
    pitch: float = Field(0.0, ge=-3, le=3, description="fastpitch: added to the pitch, in its standard deviations")
    noise_scale: float | None = Field(None, ge=0, le=2, description="vits: what is left to chance; its own if unset")
    piece_chars: int = Field(200, ge=20, description="longer texts are split at sentences, and spoken piece by piece")
    pause_s: float = Field(0.4, ge=0, le=5, description="pause between sentences of a split text, seconds; half of it "
                           "within one")  # fmt: skip
    sample_rate: int | None = Field(None, ge=8_000, le=48_000, description="output rate, Hz; the voice's own if unset")
    loudness_lufs: float | None = Field(None, ge=-70, le=-5, description="integrated loudness (BS.1770), LUFS; as "
                                        "spoken when unset")  # fmt: skip
    trailing_silence_s: float = Field(0.0, ge=0, le=10, description="silence after the speech, seconds")
    codec: Literal["flac", "opus"] = Field("flac", description="opus: in Ogg, at 8, 12, 16, 24 or 48 kHz")
    max_wer: MaxRoundTripWer = 0.2
    max_chars: int = Field(2000, gt=0, description="longer texts are rejected (text_too_long)")

    @model_validator(mode="after")
    def _opus_knows_the_rate(self) -> TtsSettings:
        if self.codec == "opus" and self.sample_rate not in (None, *OPUS_RATES):
            raise ValueError(f"opus has no sample_rate of {self.sample_rate}; it has {', '.join(map(str, OPUS_RATES))}")
        return self


def _enough_voices(tts: TtsSettings) -> TtsSettings:
    """Checked where the settings are whole: the regenerate flow takes its voices apart from the others."""
    if tts.voices_per_clip > max(1, len(tts.voices)):
        raise ValueError(f"voices_per_clip is {tts.voices_per_clip}, but voices names {len(tts.voices)}")
    return tts


Speech = Annotated[TtsSettings, AfterValidator(_enough_voices)]


class Recipe(Settings):
    """Everything a row's content depends on, machine and crash aside."""

    audio: AudioSettings = AudioSettings()
    segmentation: SegmentationSettings = SegmentationSettings()
    denoise: DenoiseSettings = DenoiseSettings()
    features: FeatureSettings = FeatureSettings()
    asr: AsrSettings = AsrSettings()
    tts: Speech = TtsSettings()

    @model_validator(mode="after")
    def _features_are_of_what_is_heard(self) -> Recipe:
        half = self.audio.sample_rate / 2
        if self.features.f_min >= half or (self.features.f_max or 0) > half:
            raise ValueError(
                f"features.f_min must lie below, and features.f_max not above, half of audio.sample_rate: {half:g} Hz"
            )
        return self

    @model_validator(mode="after")
    def _hears_what_is_made(self) -> Recipe:
        if self.asr.first_input == "denoised" and self.denoise.method == "none":
            raise ValueError("asr.chosen_input is denoised and denoise.method is none: no transcript would be chosen")
        return self

    @property
    def round_trip(self) -> str:
        """The transcriber that hears the voice."""
        return self.tts.round_trip or self.asr.transcribers[-1]

    @property
    def engines(self) -> tuple[str, ...]:
        """Specs of all engines that a run loads."""
        voice = [self.tts.synthesizer, self.round_trip] if self.tts.synthesizer else []
        return tuple(dict.fromkeys([*self.asr.transcribers, *voice]))

    def fingerprint(self, digests: dict[str, str]) -> str:
        """Hash of the settings and of ``digests`` (engine spec -> digest of its local checkpoint)."""
        return stable_id("recipe", SCHEMA_VERSION, self.model_dump(mode="json"), digests, length=16)


class Storage(Settings):
    """How object stores are reached. Secrets never stand here: the standard credential chain or a block holds them."""

    endpoint_url: str | None = Field(None, description="S3 endpoint, for stores other than AWS")
    region: str | None = Field(None, description="S3 region")
    profile: str | None = Field(None, description="named profile of the AWS configuration")
    anonymous: bool = Field(False, description="unsigned requests, for public buckets")
    credentials_block: str | None = Field(None, description="name of an S3 credentials block in Prefect")


class Cluster(Settings):
    """Where the data plane runs and what its stages may take. Defaults are chosen from what the cluster has."""

    address: str | None = Field(None, description="Ray address, or auto; a local Ray when unset")
    cpus: float | None = Field(
        None, gt=0, description="CPUs the run may use, and a cluster is to grow to; all that it has when unset"
    )
    gpu_count: int | None = Field(
        None, ge=0, description="GPUs the run may use, and a cluster is to grow to; all that it has when unset"
    )
    object_store_mb: int | None = Field(None, ge=100, description="object store of a local Ray, MB")
    actors: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="engine spec or stage -> number of its workers"
    )
    gpus: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="engine spec -> GPUs (or a fraction) per worker"
    )


class Sharding(Settings):
    """How archives are cut. Part of shard ids through the member ranges it gives."""

    minutes: float = Field(15.0, gt=0, le=120, description="audio per shard, minutes (estimated from bytes)")
    max_members: int = Field(5_000, gt=0, description="most members of one shard")


class Gate(Settings):
    """What a run must keep to. One that does not is published as failed_quality, and its flow run fails."""

    max_wer: float | None = Field(None, ge=0, description="highest pooled WER of the chosen transcripts")
    max_regression: float | None = Field(
        None, ge=0, description="highest rise of WER over the last comparable run that is shown by the paired interval"
    )
    max_reject_rate: float | None = Field(
        None, ge=0, le=1, description="highest share of members rejected; one that fails night after night counts once"
    )
    min_kept_hours: float | None = Field(None, ge=0, description="fewest hours of speech published")


class Prices(Settings):
    """What the machines cost, in any currency; with it the report says what an hour of speech costs."""

    cpu_hour: float | None = Field(None, ge=0, description="price of one CPU core for an hour")
    gpu_hour: float | None = Field(None, ge=0, description="price of one GPU for an hour")
    currency: str = Field("USD", min_length=1, max_length=12, description="what the prices are in")


class CorpusParameters(Settings):
    """Parameters of the corpus flow, the same for the command line, the deployments and Prefect's form."""

    sources: Sources
    destination: Destination
    recipe: Recipe = Recipe()
    storage: Storage = Storage()
    cluster: Cluster = Cluster()
    sharding: Sharding = Sharding()
    gate: Gate = Gate()
    prices: Prices = Prices()
    trusted: Trusted = ()
    reprocess: Reprocess = False
    max_file_mb: MaxFileMb = 256


class RegenerateParameters(Settings):
    """Parameters of the regenerate flow."""

    destination: Destination
    run_id: RunId = None
    where: Where = None
    text: SpokenText = "either"
    tts: Speech
    storage: Storage = Storage()
    cluster: Cluster = Cluster()
    trusted: Trusted = ()
    max_file_mb: MaxFileMb = 256


class ExportParameters(Settings):
    """Parameters of the export flow."""

    destination: Destination
    folder: Folder
    clips: Clips = "original"
    run_id: RunId = None
    where: Where = None
    text: SpokenText = "either"
    formats: Formats = ("nemo", "huggingface", "lhotse")
    storage: Storage = Storage()


class Layout(Settings):
    """Where things lie under a destination."""

    destination: str

    def partition(self, table: str, run_date: str, run_id: str) -> str:
        return f"{self.destination}/{table}/run_date={run_date}/run_id={run_id}"

    def manifest(self, run_id: str) -> str:
        return f"{self.destination}/_runs/{run_id}.json"

    def ledger(self, run_id: str) -> str:
        return f"{self.destination}/_runs/{run_id}.members.parquet"

    def staging(self, fingerprint: str) -> str:
        return f"{self.destination}/_staging/{fingerprint}"

    def report(self, run_id: str, before: str | None = None) -> str:
        """The page of a run; with ``before``, that of its comparison with the run of that id."""
        return f"{self.destination}/reports/{run_id}/{f'since-{before}' if before else 'index'}.html"
