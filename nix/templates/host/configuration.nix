# The virtual machines of this host. Put yourself in the place of alice: a user of this host, who uses `v` without being
# root and logs in to the guest.
{ pkgs, virshle, ... }:
{
  services.virshle = {
    enable = true;
    openFirewall = true;
    members = [ "alice" ];

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
      # The line in ~/.ssh/id_ed25519.pub.
      users.alice.authorizedKeys = [ "ssh-ed25519 AAAA… alice@desk" ];
    };
  };
}
