# What `make demo` and `make test` run; see tests/packages for the same on Debian.
{ pkgs }:
pkgs.mkShell {
  packages = with pkgs; [
    cargo
    clippy
    rustc
    rustfmt

    # hypervisors and switch
    cloud-hypervisor
    openvswitch-dpdk
    passt
    qemu_kvm

    # networks
    dnsmasq
    nftables

    # the guest image
    apt
    cpio
    debian-archive-keyring
    dosfstools
    dpkg
    e2fsprogs
    fakeroot
    kmod
    mmdebstrap
    mtools
    util-linux
    zstd

    # the suite
    btrfs-progs
    iproute2
    iputils
    openssh
    python3
    sqlite
    xfsprogs

    # the Nix files
    deadnix
    nix
    nixfmt
  ];
}
