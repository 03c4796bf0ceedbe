# Machines with `services.virshle` and a NixOS guest, looked at from inside:
#
#   boot         a declared VM comes up with the host, and ssh answers
#   declarative  a VM is added, changed and removed with a new system; one made by hand is left alone
#   switch       a new system with a new package leaves the same guest running in the same process
#   ovs-restart  a guest keeps its network while Open vSwitch is started anew
#   reboot       guests go down with the host in order, and come back with it
#   hardening    what the units, the hypervisor and the folders are allowed
#   guest-image  what modules/guest promises, seen in the guest
#
# `nix build .#checks.x86_64-linux.machine-boot` runs one; `nix run .#checks.x86_64-linux.machine-boot.driver` by hand.
# They need a nixpkgs. Where the project is developed there is none: there the hosts are only evaluated, against the
# options of the module and those of NixOS (tests/nix/nixos.nix), the scripts are held to what the driver takes
# (tests/flake/script.py), and nothing has been run. The guest has KVM where the builder lets machines nest, else QEMU
# executes its instructions, which takes minutes.
{ pkgs, self }:
let
  keys = import (pkgs.path + "/nixos/tests/ssh-keys.nix") pkgs;
  image = self.lib.mkGuestImage {
    inherit pkgs;
    modules = [
      {
        documentation.enable = false;
        system.stateVersion = "26.11";
      }
    ];
  };

  test =
    file:
    pkgs.testers.runNixOSTest {
      imports = [ file ];
      defaults.imports = [
        self.nixosModules.default
        (import ./host.nix { inherit image keys; })
      ];
      globalTimeout = 60 * 60;
    };
in
builtins.mapAttrs (_: test) {
  boot = ./boot.nix;
  declarative = ./declarative.nix;
  switch = ./switch.nix;
  ovs-restart = ./ovs-restart.nix;
  reboot = ./reboot.nix;
  hardening = ./hardening.nix;
  guest-image = ./guest-image.nix;
}
