# `[[network]]`: what VMs are plugged into.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  words = import ../lib/types.nix { inherit lib; };
  inherit (words) maybe;

  network =
    { name, ... }:
    {
      options = {
        name = words.named name "lan" "Its name, which a VM's NIC refers to.";
        type =
          maybe
            (types.enum [
              "ovs"
              "bridge"
              "user"
            ])
            "bridge"
            ''
              What it is made of: an Open vSwitch bridge, which it is when null, a Linux bridge, or the hypervisor's own
              address translation.
            '';
        bridge = maybe words.device "br0" "The bridge; `vsbr0` when null. A `user` network has none.";
        create = maybe types.bool true ''
          Whether Virshle makes the bridge, and all that stands on it; false: a bridge of the site's own is used as
          it is. When null, it does where a `subnet` or an `uplink` is given and nobody else has made the bridge.
        '';
        datapath = maybe (types.enum [
          "auto"
          "netdev"
          "system"
        ]) "netdev" "What a new Open vSwitch bridge moves frames by; `auto` when null.";
        subnet =
          maybe words.subnet "10.44.0.0/24"
            "What VMs get their addresses from; null: the guest's own DHCP decides.";
        subnet6 = maybe (types.either (types.enum [ false ]) words.subnet6) "fd12:3456:789a:1::/64" ''
          The same for IPv6; when null, one is made up (a ULA) and remembered. `false`: no IPv6.
        '';
        gateway = maybe words.address "10.44.0.1" ''
          The guests' way out, which is this host's own address on a bridge that Virshle makes; the subnet's first
          address when null.
        '';
        dns = maybe (types.listOf types.str) [ "9.9.9.9" ] ''
          Name servers: the guests' own on a bridge of the site's, else those that this host's DNS asks; the host's
          own when null.
        '';
        domain = maybe types.str "lab.example" "What names of VMs end in; `vm` when null.";
        dhcp = maybe types.bool false "Whether guests that ask get an address; they do when null.";
        nat = maybe types.bool false "Whether guests go out under the host's address; they do when null.";
        isolated =
          maybe types.bool true
            "Whether guests reach nothing but each other and this host's DHCP and DNS.";
        vlan = maybe (types.ints.between 1 4094) 44 ''
          The tag of its frames, on an Open vSwitch bridge that it shares with other networks.
        '';
        mtu =
          maybe (types.ints.between 1280 9216) 1500
            "The largest packet, in bytes; the kernel's own when null.";
        uplink = maybe words.device "eth0" ''
          The host's interface to put into the bridge: the site's own router and DHCP serve then.
        '';
      };
    };
in
{
  options.services.virshle.networks = mkOption {
    type = types.attrsOf (types.submodule network);
    default = { };
    example = {
      lan = {
        type = "bridge";
        bridge = "br0";
        subnet = "10.44.0.0/24";
      };
    };
    description = "The networks that VMs are plugged into.";
  };
}
