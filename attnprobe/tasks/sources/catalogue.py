"""Where the published data sets come from, and everything known by which to recognise them.

Checksums are those that the publishers or established libraries print; where nobody published one it is None and only
sizes and counts can be checked.
"""

import dataclasses

MEGABYTE = 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """One file to download."""

    name: str
    urls: tuple[str, ...]  # mirrors, tried in turn
    size: int | None  # bytes; None = not known exactly
    checksum: str | None  # "md5:..." or "sha256:..."; None = none was published
    archive: bool = True  # must be unpacked before use
    about: int = 0  # bytes, roughly, where the exact size is not known


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """One data set as its publisher offers it."""

    title: str
    folder: str  # below the cache or the user's data folder
    files: tuple[File, ...]
    markers: tuple[str, ...]  # files that the unpacked data must have
    prepared: tuple[str, ...] = ()  # files of a copy that published code has rewritten; such a copy will do as well
    download_folder: str = ""  # where the files are kept if several sources are in them; "" = folder
    inner: tuple[str, ...] = ("",)  # folders in which the markers may lie
    wanted: tuple[str, ...] = ("*",)  # what is unpacked, as patterns
    unpacked: int = 0  # the most bytes that may come out of the archive
    on_disk: int = 0  # bytes, roughly, that the unpacked files take
    contents: dict[str, str] = dataclasses.field(default_factory=dict)  # unpacked file -> published checksum
    counts: dict[str, int] = dataclasses.field(default_factory=dict)  # pattern -> number of files
    rows: dict[str, int] = dataclasses.field(default_factory=dict)  # tab-separated file -> number of rows
    lines: dict[str, int] = dataclasses.field(default_factory=dict)  # pattern -> number of lines of all files together
    note: str = ""

    @property
    def size(self) -> int:
        """Bytes to download, as far as they are known."""
        return sum(file.size or 0 for file in self.files)


def _bidmc(target: str, record: int) -> Source:
    names = (f"BIDMC32{target}_TRAIN.ts", f"BIDMC32{target}_TEST.ts")
    files = tuple(
        File(
            name=name,
            urls=(f"https://zenodo.org/record/{record}/files/{name}",),
            size=None,
            checksum=None,
            archive=False,
        )
        for name in names
    )
    return Source(
        title=f"BIDMC {target}: two vital signals of 32 s each (Monash/UEA/UCR regression archive)",
        folder="bidmc",
        files=files,
        markers=names,
        prepared=tuple(f"{target}/reshuffle/{part}{axis}.npy" for part in BIDMC_PARTS for axis in "xy"),
        inner=("", target, f"BIDMC32{target}"),
    )


def _pathfinder(side: int, on_disk: int) -> Source:
    name = f"pathfinder{side}"
    return Source(
        title=f"Pathfinder: 3 x 200 000 images of {side} x {side} pixels (Tay et al. 2021)",
        folder="pathfinder",
        files=(_LRA,),
        download_folder=_LRA_FOLDER,
        markers=("curv_contour_length_14/metadata",),  # the difficulty of the benchmark; the other two may be missing
        inner=(name, "", f"{name}/{name}", f"lra_release/{name}", f"lra_release/lra_release/{name}"),
        wanted=(f"{name}/*", f"*/{name}/*"),
        unpacked=20_000 * MEGABYTE,
        on_disk=on_disk,
        counts={f"{difficulty}/imgs/*/*.png": 200_000 for difficulty in PATHFINDER_FOLDERS.values()},
        lines={f"{difficulty}/metadata/*.npy": 200_000 for difficulty in PATHFINDER_FOLDERS.values()},
        note=_LRA_NOTE + _DRAWN,
    )


BIDMC_PARTS = ("train", "valid", "test")  # of the copies that published code has prepared
PATHFINDER_FOLDERS = {6: "curv_baseline", 9: "curv_contour_length_9", 14: "curv_contour_length_14"}  # by contour length
LISTOPS_FILES = {"train": "basic_train.tsv", "validation": "basic_val.tsv", "test": "basic_test.tsv"}


_LRA = File(
    name="lra_release.gz",
    urls=("https://storage.googleapis.com/long-range-arena/lra_release.gz",),
    size=None,
    checksum=None,
    about=7_700 * MEGABYTE,
)
_LRA_FOLDER = "lra"
_LRA_NOTE = (
    "in the release of the Long Range Arena, about 7.7 GB, which one download brings for all of its data; "
    "its host has been reported to refuse access (HTTP 403)"
)

_DRAWN = "; the task draws such data itself unless its setting source is 'published'"

_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_FASHION_MIRROR = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
_FASHION_FILES = {
    "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
}

SOURCES: dict[str, Source] = {
    "cifar-10": Source(
        title="CIFAR-10, binary version (Krizhevsky 2009)",
        folder="cifar-10",
        files=(
            File(
                name="cifar-10-binary.tar.gz",
                urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
                size=170_052_171,
                checksum="md5:c32a1d4ab5d03f1284b67883e8d87530",
            ),
        ),
        markers=(*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
        inner=("", "cifar-10-batches-bin"),
        unpacked=400 * MEGABYTE,
        on_disk=185 * MEGABYTE,
        contents={
            "data_batch_1.bin": "sha256:cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
            "data_batch_2.bin": "sha256:a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
            "data_batch_3.bin": "sha256:bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
            "data_batch_4.bin": "sha256:014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
            "data_batch_5.bin": "sha256:755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
            "test_batch.bin": "sha256:8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        },
    ),
    "cifar-10-python": Source(
        title="CIFAR-10, Python version (Krizhevsky 2009); the binary version holds the same images",
        folder="cifar-10",
        files=(
            File(
                name="cifar-10-python.tar.gz",
                urls=(
                    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/cifar-10-python.tar.gz",
                ),
                size=170_498_071,
                checksum="md5:c58f30108f718f92721af3b95e74349a",
            ),
        ),
        markers=(*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
        inner=("", "cifar-10-batches-py"),
        unpacked=400 * MEGABYTE,
        on_disk=187 * MEGABYTE,
        contents={
            "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
            "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
            "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "md5:40351d587109b95175f43aff81a1287e",
        },
    ),
    "imdb": Source(
        title="IMDb reviews: 50 000 film reviews with their sentiment (Maas et al. 2011)",
        folder="imdb",
        files=(
            File(
                name="aclImdb_v1.tar.gz",
                urls=(
                    "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
                    "https://bj.bcebos.com/dataset/imdb%2FaclImdb_v1.tar.gz",
                ),
                size=84_125_825,
                checksum="md5:7c2ac02c03563afcf9b574c7e56c153a",
            ),
        ),
        markers=("train/pos", "train/neg", "test/pos", "test/neg"),
        inner=("", "aclImdb"),
        wanted=("*/train/pos/*.txt", "*/train/neg/*.txt", "*/test/pos/*.txt", "*/test/neg/*.txt"),
        unpacked=1500 * MEGABYTE,
        on_disk=210 * MEGABYTE,
        counts={f"{split}/{label}/*.txt": 12_500 for split in ("train", "test") for label in ("pos", "neg")},
    ),
    "aan": Source(
        title="AAN: pairs of papers, does one cite the other (Radev et al. 2013; pairs of the Long Range Arena)",
        folder="aan",
        files=(_LRA,),
        download_folder=_LRA_FOLDER,
        markers=tuple(f"new_aan_pairs.{split}.tsv" for split in ("train", "eval", "test")),
        inner=("", "tsv_data", "lra_release/tsv_data", "lra_release/lra_release/tsv_data"),
        wanted=("*new_aan_pairs.*.tsv",),
        unpacked=100_000 * MEGABYTE,
        on_disk=5_000 * MEGABYTE,
        rows={"new_aan_pairs.train.tsv": 147_086, "new_aan_pairs.eval.tsv": 18_090, "new_aan_pairs.test.tsv": 17_437},
        note=_LRA_NOTE,
    ),
    "listops": Source(
        title="ListOps: 100 000 nested lists of operators and digits (Nangia & Bowman 2018, Tay et al. 2021)",
        folder="listops",
        files=(_LRA,),
        download_folder=_LRA_FOLDER,
        markers=tuple(LISTOPS_FILES.values()),
        inner=("", "listops-1000", "lra_release/listops-1000", "lra_release/lra_release/listops-1000"),
        wanted=("listops-1000/*.tsv", "*/listops-1000/*.tsv"),
        unpacked=10_000 * MEGABYTE,
        on_disk=700 * MEGABYTE,
        rows={"basic_train.tsv": 96_001, "basic_val.tsv": 2_001, "basic_test.tsv": 2_001},  # with the line of headings
        note=_LRA_NOTE + _DRAWN,
    ),
    "pathfinder32": _pathfinder(32, 2_500 * MEGABYTE),
    "pathfinder64": _pathfinder(64, 2_500 * MEGABYTE),
    "pathfinder128": _pathfinder(128, 5_000 * MEGABYTE),
    "pathfinder256": _pathfinder(256, 10_000 * MEGABYTE),
    "speech-commands": Source(
        title="Speech Commands v0.02: 105 829 clips of 35 words, 16 kHz (Warden 2018)",
        folder="speech-commands",
        files=(
            File(
                name="speech_commands_v0.02.tar.gz",
                urls=(
                    "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
                    "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
                ),
                size=2_428_923_189,
                checksum="sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
            ),
        ),
        markers=("validation_list.txt", "testing_list.txt"),
        unpacked=8000 * MEGABYTE,
        on_disk=3_900 * MEGABYTE,
        counts={"[!_]*/*.wav": 105_829},
        rows={"validation_list.txt": 9_981, "testing_list.txt": 11_005},
    ),
    "bidmc-rr": _bidmc("RR", 4001463),
    "bidmc-hr": _bidmc("HR", 4001456),
    "bidmc-spo2": _bidmc("SpO2", 4001464),
    "fashion-mnist": Source(
        title="Fashion-MNIST: 70 000 grey images of clothing (Xiao et al. 2017)",
        folder="fashion-mnist",
        files=tuple(
            File(name=name, urls=(_FASHION + name, _FASHION_MIRROR + name), size=size, checksum=checksum, archive=False)
            for (name, checksum), size in zip(
                _FASHION_FILES.items(), (26_421_880, 29_515, 4_422_102, 5_148), strict=True
            )
        ),
        markers=tuple(_FASHION_FILES),
        note="Debian and Ubuntu have it: apt-get install dataset-fashion-mnist",
    ),
}

# Which sources a task reads, the preferred one first; the other tasks are generated.
TASK_SOURCES: dict[str, tuple[str, ...]] = {
    "image": ("cifar-10", "cifar-10-python"),
    "scifar": ("cifar-10", "cifar-10-python"),
    "text": ("imdb",),
    "retrieval": ("aan",),
    "speech-commands": ("speech-commands",),
    "bidmc": ("bidmc-rr", "bidmc-hr", "bidmc-spo2"),
    "fashion-mnist": ("fashion-mnist",),
}

# Which sources can serve a task that is generated unless its setting ``source`` is "published".
PUBLISHED_SOURCES: dict[str, tuple[str, ...]] = {
    "listops": ("listops",),
    "pathfinder": ("pathfinder32", "pathfinder64", "pathfinder128", "pathfinder256"),
}
