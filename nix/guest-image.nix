# A bootable raw image of a NixOS guest. It is a folder with one file: `${mkGuestImage { … }}/nixos.img` is what an
# image or a disk has as its `path`.
{
  pkgs,
  # What the guest is, beyond modules/guest.
  modules ? [ ],
  # In MiB. The guest's root grows to its disk at each boot, so the image need not be larger than what it holds.
  size ? "auto",
}:
let
  guest = pkgs.nixos ([ ../modules/guest ] ++ modules);
in
import (pkgs.path + "/nixos/lib/make-disk-image.nix") {
  inherit pkgs;
  inherit (pkgs) lib;
  inherit (guest) config;
  name = "virshle-guest";
  format = "raw";
  partitionTableType = "efi";
  diskSize = size;
  # Kernels and initrds of several generations.
  bootSize = "512M";
  # A guest gets its nixpkgs with its next configuration.
  copyChannel = false;
}
