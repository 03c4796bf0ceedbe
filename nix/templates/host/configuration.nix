# `nixos-rebuild switch --flake .#host` makes the VM `web` and starts it; `v vm ssh web` logs in.
# Below it, add what the machine itself needs: `nixos-generate-config --show-hardware-config`.
{ pkgs, virshle, ... }:
{
  services.virshle = {
    enable = true;

    networks.lan = {
      type = "bridge";
      bridge = "vmbr0";
      subnet = "10.44.0.0/24";
    };

    images.nixos.path =
      let
        image = virshle.lib.mkGuestImage {
          inherit pkgs;
          modules = [ { system.stateVersion = "26.11"; } ];
        };
      in
      "${image}/nixos.img";

    templates.xs = {
      vcpu = 1;
      vram = "2G";
      disks.os = {
        image = "nixos";
        size = "20G";
      };
      nets.lan = { };
    };

    vms.web = {
      template = "xs";
      users.alice.authorizedKeys = [ "ssh-ed25519 AAAA… alice@desk" ];
    };
  };

  system.stateVersion = "26.11";
}
