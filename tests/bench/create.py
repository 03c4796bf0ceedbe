"""(b) `v vm create` of an image that is mostly holes, beside `cp`; and of a reflink beside `cp --reflink`."""

import os
import shutil

from measure import Row, Skip, alternate, need, run, timed

SIZE, DATA, PIECES = 20 << 30, 2 << 30, 64
# The image, a copy of it, a second image on xfs, and what file systems keep for themselves.
ROOM = 8 << 30


def rows(stage, runs):
    stage.needs_kvm()
    free = shutil.disk_usage(stage.dir).free
    if free < ROOM:
        raise Skip(f"{ROOM >> 30} GiB of room are needed in {stage.dir}, and {free / 2**30:.1f} are free")
    image = stage.dir / "image.raw"
    write_image(image)
    try:
        yield from sparse(stage, image, runs)
        yield from reflink(stage, image, runs)
    finally:
        image.unlink()


def write_image(path):
    piece, step = DATA // PIECES, SIZE // PIECES
    with open(path, "wb") as file:
        file.truncate(SIZE)
        for index in range(PIECES):
            file.seek(index * step)
            for _ in range(piece >> 20):
                file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())


def template(stage, image):
    return (f'[[template.vm]]\nname = "disk"\nvcpu = 1\nvram = "64MiB"\nkernel = "{stage.payload()}"\n'
            f'[[template.vm.disk]]\nname = "os"\npath = "{image}"\n')


def quiet(dir, cold=None):
    """What an earlier run left to be written is written before the clock starts; `cold` leaves the page cache."""
    run(["sync", "-f", str(dir)], 600)
    if cold:
        with open(cold, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def by_v(root, cold=None):
    def create():
        quiet(root.path, cold)
        took = root.timed("vm", "create", "-t", "disk", "-n", "one", deadline=600)
        root.v("vm", "delete", "one")
        return took

    return create


def by_cp(argv, image, copy, cold=False):
    def cp():
        quiet(copy.parent, image if cold else None)
        took = timed([*argv, str(image), str(copy)], 600)
        copy.unlink()
        return took

    return cp


def sparse(stage, image, runs):
    need("cp")
    root = stage.root("sparse", template(stage, image))
    copy = stage.dir / "copy.raw"
    cp = ["cp", "--sparse=always"]
    # The second cp makes its copy durable, as `v` always does.
    durable = ["sh", "-c", 'cp --sparse=always "$1" "$2" && sync "$2"', "sh"]
    v, plain, synced = alternate(runs or 7, by_v(root), by_cp(cp, image, copy), by_cp(durable, image, copy))
    what = f"`v vm create`, {SIZE >> 30} GiB with {DATA >> 30} GiB of data, over `cp --sparse=always`"
    note = "`v` ends when the copy is on the disk; `cp` alone ends when it is in memory, `cp` and `sync` as `v` does"
    yield Row.ratio(what, v, plain, 1.1, [note])
    yield Row.ratio(f"{what} and `sync FILE`", v, synced, 1.1)
    v, plain = alternate(runs or 5, by_v(root, image), by_cp(cp, image, copy, cold=True))
    yield Row.ratio(f"{what}, the image read from the disk", v, plain)
    root.end()


def reflink(stage, image, runs):
    what = "`v vm create` of a reflink on xfs, over `cp --reflink=always`"
    if os.geteuid() != 0:
        yield Row.skipped(what, "making xfs in a file and mounting it needs root")
        return
    for program in ("mkfs.xfs", "mount", "umount"):
        try:
            need(program)
        except Skip as reason:
            yield Row.skipped(what, reason)
            return
    file, mount = stage.dir / "xfs.img", stage.dir / "xfs"
    with open(file, "wb") as disk:
        disk.truncate(6 << 30)
    run(["mkfs.xfs", "-q", "-m", "reflink=1", str(file)])
    mount.mkdir()
    try:
        run(["mount", "-o", "loop", str(file), str(mount)])
    except RuntimeError as reason:
        yield Row.skipped(what, reason)
        return
    stage.callback(run, ["umount", "--lazy", str(mount)])
    here = mount / "image.raw"
    run(["cp", "--sparse=always", str(image), str(here)], 600)
    root = stage.root("v", template(stage, here), mount)
    cp = ["cp", "--reflink=always"]
    durable = ["sh", "-c", 'cp --reflink=always "$1" "$2" && sync "$2"', "sh"]
    copy = mount / "copy.raw"
    v, plain, synced = alternate(runs or 15, by_v(root), by_cp(cp, here, copy), by_cp(durable, here, copy))
    yield Row.difference(what, v, plain, 50)
    yield Row.ratio(f"{what} and `sync FILE`", v, synced)
    root.end()
