# What runs guests, and what Virshle itself runs, on the system's PATH.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkIf optional;
  cfg = config.services.virshle;
  inherit (cfg.hypervisors) cloudHypervisor firmware qemu;
in
{
  config = mkIf cfg.enable {
    environment = {
      systemPackages = [
        cfg.package
        # Networks: bridges, the firewall, names and addresses.
        pkgs.iproute2
        pkgs.nftables
        pkgs.dnsmasq
        # Those of the type `user`.
        pkgs.passt
      ]
      ++ optional cloudHypervisor.enable cloudHypervisor.package
      ++ optional (cloudHypervisor.enable && firmware.package != null) firmware.package
      ++ optional qemu.enable qemu.package;

      # The firmware of both. A VM remembers the path, and one below /run/current-system
      # outlives garbage collection.
      pathsToLink = [
        "/FV"
        "/share/qemu"
      ];
    };
  };
}
