"""The folder of shared files: its place, its owner, what others have planted in it."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from altaprofiles import CleverTap, ConfigurationError, Session
from altaprofiles.http.machine.commons import common_name
from altaprofiles.http.machine.folder import Folder, default_place, network_system

pytestmark = pytest.mark.skipif(os.name != "posix", reason="about users and modes of POSIX")

ROOT = Path(__file__).parents[3]
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can set this up")

NOBODY = 65534
GROUP = 54321


def modes(path: Path) -> list[int]:
    return [one.stat().st_mode & 0o7777 for one in sorted(path.rglob("*"))]


def opened(place: Path) -> Folder:
    folder = Folder(place, "account")
    folder.check()
    folder.lock("record")
    return folder


def refused(place: Path) -> str:
    with pytest.raises(ConfigurationError) as raised:
        opened(place).close()
    return str(raised.value)


def test_a_missing_folder_is_made_for_its_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        opened(tmp_path / "a" / "b").close()
    finally:
        os.umask(before)
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == [
        "a", "b", "account", "probe", "record",
    ]  # fmt: skip
    assert modes(tmp_path) == [0o700, 0o700, 0o700, 0o600, 0o600]
    # The second time, they are there.
    opened(tmp_path / "a" / "b").close()


def descriptors() -> int:
    """Return the number of open files, 0 where the system does not show it."""
    numbers = Path("/proc/self/fd")
    return len([*numbers.iterdir()]) if numbers.exists() else 0


def test_no_file_is_left_open(tmp_path: Path) -> None:
    before = descriptors()
    for _ in range(3):
        opened(tmp_path / "slots").close()
    refused(tmp_path / "slots" / "account" / "record")
    assert descriptors() == before


_PLACE = "from altaprofiles.http.machine.folder import default_place; print(default_place())"


def place_in(environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", _PLACE]
    done = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, cwd=ROOT
    )
    return done.stdout.strip()


def test_the_place_does_not_depend_on_the_environment(tmp_path: Path) -> None:
    home = pwd.getpwuid(os.geteuid()).pw_dir
    place = default_place()
    assert place.is_relative_to(home)
    assert place.parts[-2:] == ("altaprofiles", "slots")
    elsewhere = str(tmp_path)
    for environment in (
        {},
        {"HOME": elsewhere, "XDG_CACHE_HOME": elsewhere, "XDG_RUNTIME_DIR": elsewhere},
    ):
        assert place_in(environment) == str(place)


@only_root
def test_a_user_without_a_home_is_asked_for_a_folder() -> None:
    code = (
        "import os, pwd\n"
        "from altaprofiles import ConfigurationError\n"
        "from altaprofiles.http.machine.folder import default_place\n"
        f"os.setuid({GROUP})\n"
        "try: default_place()\n"
        "except ConfigurationError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout == (
        f"shared: the user {GROUP} has no home folder; "
        'pass shared="/path", a folder on a local disk\n'
    )


# ------------------------------------------------------------------------------ what others planted


def link(path: Path, to: Path) -> None:
    path.symlink_to(to)


def dangling_link(path: Path, to: Path) -> None:
    path.symlink_to(to.with_name("nothing"))


def hard_link(path: Path, to: Path) -> None:
    path.hardlink_to(to)


def pipe(path: Path, to: Path) -> None:
    os.mkfifo(path)


def folder(path: Path, to: Path) -> None:
    path.mkdir()


def of_another_user(path: Path, to: Path) -> None:
    path.write_bytes(b"")
    os.chown(path, NOBODY, -1)


@pytest.mark.parametrize(
    "plant",
    [
        link,
        dangling_link,
        hard_link,
        pipe,
        folder,
        pytest.param(of_another_user, marks=only_root),
    ],
)
@pytest.mark.parametrize("name", ["record", "probe"])
def test_a_file_that_was_planted_is_not_used(
    tmp_path: Path, plant: Callable[[Path, Path], None], name: str
) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    place = tmp_path / "slots"
    (place / "account").mkdir(parents=True)
    plant(place / "account" / name, mine)
    message = refused(place)
    assert message.startswith(f"shared: {place / 'account' / name} ")
    assert mine.read_bytes() == b"mine"
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("plant", [link, dangling_link, hard_link, pipe])
def test_a_folder_that_was_planted_is_not_used(
    tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"")
    place = tmp_path / "slots"
    place.mkdir()
    to = tmp_path / "elsewhere"
    plant(place / "account", to / "file" if plant is hard_link else to)
    assert "a link or a file stands in its place" in refused(place)
    assert [path.name for path in to.iterdir()] == ["file"]


def test_a_link_to_the_place_is_its_user_s_own(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "slots").symlink_to("there")
    opened(tmp_path / "slots").close()
    assert (tmp_path / "there" / "account" / "record").exists()


def test_a_folder_that_everybody_can_write_to_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "slots"
    place.mkdir()
    for mode in (0o777, 0o1777):
        place.chmod(mode)
        assert refused(place) == (
            f"shared: every user can write to {place}; pass a folder in it that is yours alone or "
            f"your group's, such as {place / 'altaprofiles'}"
        )
        # Which is made for its user alone.
        opened(place / "altaprofiles").close()
        assert (place / "altaprofiles").stat().st_mode & 0o7777 == 0o700


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file", tmp_path / "file" / "slots"):
        assert "a link or a file stands in its place; remove it" in refused(place)


@only_root
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "slots"
    place.mkdir(mode=0o700)
    os.chown(place, NOBODY, NOBODY)
    assert f"{place} belongs to another user ({NOBODY}); pass a folder of your own" in refused(
        place
    )


# ------------------------------------------------------------------------------- groups and users


@pytest.fixture
def public() -> Iterator[Path]:
    """Return a folder that every user can enter."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


_AS_USER = """
import os, sys
from pathlib import Path
from altaprofiles.http.machine.folder import Folder
from altaprofiles.errors import ConfigurationError
place, user, group = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
os.setgroups([group])
os.setgid(user)
os.setuid(user)
os.umask(0o077)
try:
    folder = Folder(place, "account")
    folder.check()
    print("held" if not folder.lock("record").take() else "free")
except ConfigurationError as error:
    print(error)
"""


def as_user(place: Path, user: int = NOBODY, group: int = GROUP) -> str:
    """Lock a file in the folder as another user; return the outcome."""
    command = [sys.executable, "-c", _AS_USER, str(place), str(user), str(group)]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout.strip()


@only_root
def test_a_folder_of_a_group_is_shared_by_its_users(public: Path) -> None:
    place = public / "slots"
    place.mkdir()
    os.chown(place, 0, GROUP)
    place.chmod(0o2770)
    # Whoever comes first makes the files for all.
    assert as_user(place) == "free"
    assert modes(place) == [0o2770, 0o660, 0o660]
    assert {path.stat().st_gid for path in place.rglob("*")} == {GROUP}
    mine = Folder(place, "account")
    lock = mine.lock("record")
    assert lock.take()
    assert as_user(place) == "held"
    assert as_user(place, 1234) == "held"
    lock.drop()
    assert as_user(place, 1234) == "free"
    mine.close()
    # A stranger is told.
    assert "cannot be used: Permission denied; pass shared=" in as_user(place, 1234, 1234)


@only_root
def test_a_missing_folder_in_one_of_a_group_is_made_for_the_group(public: Path) -> None:
    around = public / "group"
    around.mkdir()
    os.chown(around, 0, GROUP)
    around.chmod(0o2770)
    assert as_user(around / "new" / "slots") == "free"
    assert modes(around) == [0o2770, 0o2770, 0o2770, 0o660, 0o660]
    assert as_user(around / "new" / "slots", 1234) == "free"


@only_root
def test_a_private_folder_is_refused_to_other_users(public: Path) -> None:
    opened(public / "slots").close()
    message = as_user(public / "slots")
    assert message.startswith(f"shared: {public / 'slots'} belongs to another user (0); pass")
    (public / "slots").chmod(0o755)
    assert "belongs to another user (0)" in as_user(public / "slots")


@only_root
def test_a_folder_that_cannot_be_made_is_named_with_the_fix(public: Path) -> None:
    assert as_user(public / "new") == (
        f"shared: {public / 'new' / 'account'} cannot be used: Permission denied; pass "
        f'shared="/path", a folder that you can write to, or one that your group can: '
        f"mkdir -m 2770 PATH, chgrp GROUP PATH"
    )


# ------------------------------------------------------------------------------------ file systems


MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 27 0:50 / /home rw,relatime - nfs4 server:/home rw
41 40 0:51 / /home/local\040disk rw,relatime - xfs /dev/vdb rw
42 27 0:52 / /mnt/share rw - cifs //server/share rw
43 27 0:53 / /mnt/far rw - fuse.sshfs user@host: rw
44 27 0:54 / /mnt/hidden rw - nfs server:/x rw
45 44 0:55 / /mnt/hidden rw - ext4 /dev/vdc rw
"""


@pytest.mark.parametrize(
    ("path", "system"),
    [
        ("/", None),
        ("/var/cache", None),
        ("/home", "nfs4"),
        ("/home/ann/.cache", "nfs4"),
        ("/homes", None),
        ("/home/local disk/slots", None),
        ("/mnt/share/slots", "cifs"),
        ("/mnt/far", "fuse.sshfs"),
        ("/mnt/hidden/slots", None),
    ],
)
def test_network_file_systems_are_known_by_their_mounts(path: str, system: str | None) -> None:
    assert network_system(Path(path), MOUNTS) == system


@pytest.mark.parametrize("way", ["refuses", "ignores"])
def test_a_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    def flock(number: int, operation: int) -> None:
        if way == "refuses":
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    # No such file system can be mounted here.
    monkeypatch.setattr("altaprofiles.http.machine.locks._flock", flock)
    place = tmp_path / "slots"
    assert refused(place) == (
        f"shared: the file system of {place / 'account'} has no locks; "
        f'pass shared="/path", a folder on a local disk'
    )


# ------------------------------------------------------------------------------------- at a session


@pytest.mark.anyio
async def test_a_session_that_cannot_share_says_so_before_it_opens(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    session = Session(clevertap=CleverTap("id", "passcode", shared=tmp_path / "file"))
    with pytest.raises(
        ConfigurationError, match=r"shared: .* a link or a file stands in its place"
    ):
        async with session:
            raise AssertionError("it is open")
    assert session._engine.is_closed  # noqa: SLF001


@pytest.mark.anyio
async def test_a_stopped_process_in_the_middle_of_a_change_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("altaprofiles.http.machine.commons._PATIENCE", 0.05)
    account = CleverTap("id", "passcode", shared=tmp_path)
    folder = Folder(tmp_path, common_name(account.url, "id"))
    assert folder.lock("record").take()
    with pytest.raises(ConfigurationError, match="shared: a process that is stopped holds"):
        async with Session(clevertap=account):
            raise AssertionError("it is open")
    folder.close()
    async with Session(clevertap=account):
        pass


def test_the_name_of_a_folder_tells_accounts_apart_and_shows_none() -> None:
    names = {
        common_name(url, account)
        for url in ("https://eu1.api.clevertap.com", "https://in1.api.clevertap.com")
        for account in ("W9R-654-865Z", "W9R-654-865X")
    }
    assert len(names) == 4
    assert common_name("https://EU1.api.clevertap.com/x", "a") == common_name(
        "https://eu1.api.clevertap.com", "a"
    )
    assert not any("W9R" in name for name in names)
