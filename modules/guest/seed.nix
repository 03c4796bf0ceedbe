# What a guest learns at its first boot: its name, its users and their keys, its addresses. Virshle puts that on a small
# volume with the label CIDATA.
{ config, lib, ... }:
let
  inherit (lib) mkDefault mkOption types;
in
{
  options.virshle.guest.seed = mkOption {
    type = types.enum [
      "cloud-init"
      "none"
    ];
    default = "cloud-init";
    example = "none";
    description = ''
      Who reads the volume that tells the guest its name, its users and its addresses: cloud-init, or nobody. With
      `none` all of that is the guest's own configuration's: its network has to be set up there, by DHCP or with the
      address that Virshle gave it.
    '';
  };

  config = lib.mkIf (config.virshle.guest.seed == "cloud-init") {
    services.cloud-init = {
      enable = true;
      network.enable = true;
      # The volume and nothing else: no wait for the metadata service of a cloud.
      settings.datasource_list = [
        "NoCloud"
        "None"
      ];
    };

    networking = {
      hostName = mkDefault "";
      useNetworkd = true;
      # cloud-init says which NIC asks for an address. Not a default: that of a generated hardware-configuration.nix is
      # the opposite.
      useDHCP = false;
    };
    # A NIC in a network without addresses never comes online.
    systemd.network.wait-online.anyInterface = mkDefault true;

    # Users who may become root are written there.
    security.sudo.extraConfig = "@includedir /etc/sudoers.d";
  };
}
