"""The folder of shared files: its place, its owner, what others have planted in it."""

from __future__ import annotations

import errno
import gc
import os
import pwd
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from hashlib import blake2b
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
    # Those that earlier tests have left are closed at any time.
    gc.collect()
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
        "let `shared` be the path of a folder on a local disk\n"
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
    assert f"shared: {place / 'account'} is " in refused(place)
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
            f"shared: every user can write to {place}; let `shared` be a folder in it that is "
            f"yours alone or your group's, such as {place / 'altaprofiles'}"
        )
        # Which is made for its user alone.
        opened(place / "altaprofiles").close()
        assert (place / "altaprofiles").stat().st_mode & 0o7777 == 0o700


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file", tmp_path / "file" / "slots"):
        assert refused(place) == (
            f"shared: {tmp_path / 'file'} is not a folder; let `shared` be another path, or "
            f"remove it if nobody needs it"
        )


def test_slots_for_which_the_files_do_not_suffice_are_named(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    folder = opened(tmp_path / "slots")
    least = len([*Path("/proc/self/fd").iterdir()]) if sys.platform == "linux" else 64
    resource.setrlimit(resource.RLIMIT_NOFILE, (least + 8, before[1]))
    try:
        with pytest.raises(ConfigurationError) as caught:
            for number in range(100):
                folder.lock(f"{number}.slot")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        folder.close()
    assert re.fullmatch(
        r"shared: .*\.slot cannot be used: Too many open files; each slot is one: allow more "
        r"\(ulimit -n\), or pass a smaller max_in_flight",
        str(caught.value),
    )


@only_root
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "slots"
    place.mkdir(mode=0o700)
    os.chown(place, NOBODY, NOBODY)
    assert (
        f"{place} belongs to another user ({NOBODY}); let `shared` be a folder of your own"
        in refused(place)
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
    assert "cannot be used: Permission denied; let `shared` be " in as_user(place, 1234, 1234)


@only_root
def test_a_missing_folder_in_one_of_a_group_is_made_for_the_group(public: Path) -> None:
    around = public / "group"
    around.mkdir()
    os.chown(around, 0, GROUP)
    around.chmod(0o2770)
    assert as_user(around / "new" / "slots") == "free"
    assert modes(around) == [0o2770, 0o2770, 0o2770, 0o660, 0o660]
    assert as_user(around / "new" / "slots", 1234) == "free"


_USERS = """
import os, sys
from pathlib import Path
from altaprofiles.http.machine.folder import Folder
base, group = Path(sys.argv[1]), int(sys.argv[2])
os.umask(0o077)

def made(name):
    path = base / name
    path.mkdir()
    os.chown(path, 0, group)
    path.chmod(0o2770)
    return path

def as_user(user, place, step="", ready=None):
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setgroups([group])
        os.setgid(group)
        os.setuid(user)
        if ready is not None:
            os.read(ready, 1)
        if step:
            setattr(os, step, lambda *_, **__: os.kill(os.getpid(), 9))
        folder = Folder(place, "account")
        folder.check()
        for number in range(6):
            folder.lock(f"{number}.slot")
        folder.tidy()
        code = 0
    finally:
        os._exit(code)

def ended(pid):
    return os.waitpid(pid, 0)[1]
"""

_KILLED = """
for step in ("chown", "chmod", "rename", "fchown", "fchmod", "link", "unlink"):
    for place in (made(step), made(f"{step} in it") / "new"):
        assert ended(as_user(65534, place, step)) == 9, step
        for user in (1234, 65534, 1234):
            assert ended(as_user(user, place)) == 0, (step, user)
        whole = [place / "account", *(place / "account").glob("*[!w]")]
        assert [oct(path.stat().st_mode & 0o7777) for path in sorted(whole)] == [
            "0o2770", *["0o660"] * 7
        ], step
"""

_STICKY = """
for step in ("link", "unlink"):
    for mode in (0o3770, 0o1770):
        place = made(f"{step} {mode}")
        assert ended(as_user(1234, place)) == 0
        folder = place / "account"
        # Only the owner of a file may remove it there.
        folder.chmod(mode)
        for file in folder.iterdir():
            file.unlink()
        assert ended(as_user(65534, place, step)) == 9, step
        for user in (4321, 1234, 65534, 4321):
            assert ended(as_user(user, place)) == 0, (step, mode, user)
"""

_PRIVATE = """
for step in ("link", "unlink"):
    place = made(step)
    os.chown(place, 65534, group)
    assert ended(as_user(65534, place, step)) == 9, step
    for path in (place, place / "account"):
        path.chmod(0o700)
    assert ended(as_user(65534, place)) == 0, step
    assert not [path for path in place.rglob("*") if path.name.endswith(".new")], step
"""

_TOGETHER = """
for number in range(40):
    around = made(str(number))
    ready, go = os.pipe()
    pids = [as_user(user, around / "slots", ready=ready) for user in (65534, 1234, 65534)]
    os.write(go, b"...")
    assert [ended(pid) for pid in pids] == [0] * 3
    assert not [path for path in around.rglob("*") if path.name.endswith(".new")]
"""


def run_as_users(code: str, base: Path) -> None:
    command = [sys.executable, "-c", _USERS + code, str(base), str(GROUP)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


@only_root
def test_a_process_that_is_killed_while_it_makes_files_locks_nobody_out(public: Path) -> None:
    run_as_users(_KILLED, public)


@only_root
def test_what_a_killed_process_left_in_a_sticky_folder_locks_nobody_out(public: Path) -> None:
    run_as_users(_STICKY, public)


@only_root
def test_what_a_killed_process_left_in_a_folder_that_is_private_now_is_tidied(
    public: Path,
) -> None:
    run_as_users(_PRIVATE, public)


@only_root
def test_users_of_a_group_who_start_together_are_not_refused(public: Path) -> None:
    run_as_users(_TOGETHER, public)


@only_root
def test_a_second_name_of_a_file_from_elsewhere_is_refused_in_a_group_too(public: Path) -> None:
    place = public / "slots"
    place.mkdir()
    os.chown(place, 0, GROUP)
    place.chmod(0o2770)
    assert as_user(place) == "free"
    record = place / "account" / "record"
    record.rename(public / "mine")
    record.hardlink_to(public / "mine")
    assert f"{record} is not a file; remove it" in as_user(place, 1234)


@only_root
def test_what_was_not_made_for_the_group_is_given_to_it_by_its_owner(public: Path) -> None:
    place = public / "slots"
    place.mkdir()
    os.chown(place, 0, GROUP)
    place.chmod(0o2770)
    made = place / "account"
    made.mkdir(mode=0o700)
    os.chown(made, NOBODY, 4711)
    # An earlier version was killed there.
    (made / "record").touch(mode=0o600)
    os.chown(made / "record", NOBODY, 4711)
    assert "cannot be used: Permission denied" in as_user(place, 1234)
    # Its owner is no member of the other group any more.
    assert as_user(place) == "free"
    assert as_user(place, 1234) == "free"
    assert modes(place) == [0o2770, 0o660, 0o660]


@only_root
def test_a_private_folder_is_refused_to_other_users(public: Path) -> None:
    opened(public / "slots").close()
    message = as_user(public / "slots")
    assert message.startswith(
        f"shared: {public / 'slots'} belongs to another user (0); let `shared`"
    )
    (public / "slots").chmod(0o755)
    assert "belongs to another user (0)" in as_user(public / "slots")


@only_root
def test_a_folder_that_cannot_be_made_is_named_with_the_fix(public: Path) -> None:
    assert as_user(public / "new") == (
        f"shared: {public / 'new' / 'account'} cannot be used: Permission denied; let "
        f"`shared` be a folder that you can write to, or one that your group can: "
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
        f"let `shared` be the path of a folder on a local disk"
    )


# ------------------------------------------------------------------------------------- at a session


@pytest.mark.anyio
async def test_a_session_that_cannot_share_says_so_before_it_opens(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    session = Session(clevertap=CleverTap("id", "passcode", shared=tmp_path / "file"))
    with pytest.raises(
        ConfigurationError, match=r"shared: .*/file is not a folder; let `shared` be another path"
    ):
        async with session:
            raise AssertionError("it is open")
    assert session._engine.is_closed  # noqa: SLF001


@pytest.mark.anyio
@pytest.mark.parametrize("prefix", ["", "SHOP_"])
async def test_the_variable_that_names_the_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    account = {"CLEVERTAP_ACCOUNT_ID": "id", "CLEVERTAP_PASSCODE": "passcode"}
    for name, value in {**account, "ALTAPROFILES_SHARED": f"{tmp_path}/file/"}.items():
        monkeypatch.setenv(prefix + name, value)
    shared = f"{prefix}ALTAPROFILES_SHARED"
    with pytest.raises(ConfigurationError) as raised:
        await Session.from_env(prefix=prefix).__aenter__()
    assert str(raised.value) == (
        f"{shared}: {tmp_path / 'file'} is not a folder; let {shared} be another path, or remove "
        f"it if nobody needs it"
    )


@contextmanager
def full_disk() -> Generator[None, None, None]:
    """Let no file grow, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.anyio
async def test_a_full_disk_is_named(tmp_path: Path) -> None:
    account = CleverTap("id", "passcode", shared=tmp_path / "slots")
    with full_disk(), pytest.raises(ConfigurationError) as raised:
        await Session(clevertap=account).__aenter__()
    assert str(raised.value) == (
        f"shared: {tmp_path / 'slots' / common_name(account.url, 'id')} cannot be used: "
        f"File too large; let `shared` be the path of a folder on a local disk"
    )
    async with Session(clevertap=account):
        pass


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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (CleverTap("a", "p", region="eu1").url, CleverTap("a", "p", region="global").url),
        ("https://api.clevertap.com:443", "https://EU1.api.clevertap.com/gateway"),
        ("https://gateway.example", "https://gateway.example:443"),
        ("https://gateway.example", "HTTPS://Gateway.Example:0443/path"),
        ("http://127.0.0.1", "http://127.0.0.1:80"),
        ("https://[::1]:8443", "https://[0:0:0:0:0:0:0:1]:8443"),
    ],
)
def test_spellings_of_a_host_share(one: str, other: str) -> None:
    assert common_name(one, "a") == common_name(other, "a")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://gateway.example", "https://gateway.example:8443"),
        ("https://gateway.example:80", "https://gateway.example"),
        ("https://api.clevertap.com:8443", "https://eu1.api.clevertap.com"),
        ("https://api.clevertap.com", "https://in1.api.clevertap.com"),
    ],
)
def test_other_hosts_and_ports_do_not_share(one: str, other: str) -> None:
    assert common_name(one, "a") != common_name(other, "a")


def test_a_folder_has_the_name_that_earlier_versions_use() -> None:
    for host in ("in1.api.clevertap.com", "altatech.ai", "gateway.example:8443", "[::1]:8080"):
        digest = blake2b(f"2\0{host}\0a".encode(), digest_size=16).hexdigest()
        assert common_name(f"https://{host}", "a") == digest
