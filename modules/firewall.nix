# The way of guests through the host's own firewall.
{ config, lib, ... }:
let
  inherit (lib)
    concatMap
    concatMapStrings
    filter
    genAttrs
    mkIf
    unique
    ;
  cfg = config.services.virshle;
  declared = import ./lib/declared.nix { inherit lib; } cfg.settings;

  devices = unique (
    map (network: network.device) (filter (network: network.served) declared.networks)
  );

  # A forward of a served network is the kernel's; of a `user` network, a program of this host listens.
  forward = import ./lib/forward.nix { inherit lib; };
  listened = concatMap (
    vm: concatMap (nic: if nic.link == "user" then map forward (nic.ports or [ ]) else [ ]) vm.net
  ) declared.vms;
  ports =
    protocol:
    unique (
      map (port: port.hostPort) (
        filter (
          port: port != null && port.protocol == protocol && !lib.hasPrefix "127." (toString port.host)
        ) listened
      )
    );
in
{
  config = mkIf (cfg.enable && cfg.openFirewall) {
    networking.firewall = {
      allowedTCPPorts = ports "tcp";
      allowedUDPPorts = ports "udp";

      interfaces = genAttrs devices (_: {
        allowedTCPPorts = [ 53 ];
        # Names, and addresses of both kinds.
        allowedUDPPorts = [
          53
          67
          547
        ];
      });

      # What comes in by a forward is let through by NixOS itself.
      extraForwardRules = mkIf config.networking.nftables.enable (
        concatMapStrings (device: ''
          iifname "${device}" accept
        '') devices
      );
    };
  };
}
