# What a template says of its VMs, and what a VM says in its template's place.
{ lib }:
let
  inherit (lib) mkOption types;
  words = import ../lib/types.nix { inherit lib; };
  inherit (words) maybe named;

  order = mkOption {
    type = types.int;
    default = 100;
    example = 10;
    description = ''
      Its place in the order that the guest sees, lower ones first; those of one order by their attribute names.
      What a VM shares with its template keeps the template's place, and what is the VM's own comes after it.
    '';
  };

  disk =
    { name, ... }:
    {
      options = {
        inherit order;
        name = named name "os" "Its name, different from the VM's other disks'.";
        path = maybe types.path "/srv/images/debian-12.raw" "The file to clone; it is never written.";
        image = maybe words.name "debian-12" "The name of the image to clone.";
        size = maybe words.size "20G" "What the disk is grown to; a blank disk needs it.";
        readonly = maybe types.bool true "Whether the guest may only read it.";
      };
    };

  net =
    { name, ... }:
    {
      options = {
        inherit order;
        name =
          named name "lan"
            "The name of its network. Two NICs of one network are told apart by their attribute names.";
        type =
          maybe
            (types.enum [
              "vhost"
              "tap"
              "user"
            ])
            "tap"
            "How it is plugged in; when null, as the network's type has it: ovs → vhost, bridge → tap, user → user.";
        address =
          maybe words.address "10.44.0.10"
            "Its address, in the network's subnet; a free one when null.";
        mac = maybe words.mac "02:00:00:00:00:01" "Its MAC; when null, one that follows from the VM.";
        ports = maybe (types.listOf words.forward) [ "8080:80" ] ''
          Ports of the host that lead to it while the VM runs, like `8080:80`, `127.0.0.1:2222:22/tcp` or
          `5353:53/udp`. A VM's list takes the place of its template's; an empty one is none.
        '';
        allow = maybe (types.listOf types.str) [ "tcp/22" ] ''
          What is let through, like `tcp/22`, `in udp/5000-5010 from 10.0.0.0/8` or `out tcp/443`: nothing else of that
          direction is, but answers. A VM's list takes the place of its template's.
        '';
        deny = maybe (types.listOf types.str) [ "out tcp/25" ] ''
          What is not let through, in the same words; it comes before `allow`. A VM's list takes the place of its
          template's.
        '';
        rate = maybe words.rate "100Mbit" "How much it may send, and receive, in a second.";
        spoof = maybe types.bool true "Whether the guest may use other MACs and addresses than its own.";
      };
    };
in
{
  options = {
    vcpuMax =
      maybe (types.ints.between 1 255) 4
        "How many processors it can come to while it runs; no more than `vcpu` when null.";
    vramMax = maybe words.size "8G" ''
      How much memory it can come to while it runs, a multiple of 128 MiB more than `vram`; no more than that when null.
    '';
    hypervisor = maybe (types.enum [
      "auto"
      "cloud-hypervisor"
      "qemu"
    ]) "qemu" "The hypervisor, if not the node's.";
    kernel =
      maybe types.path "/srv/boot/vmlinuz"
        "A kernel that is booted directly, instead of the firmware.";
    initramfs = maybe types.path "/srv/boot/initrd.img" "The kernel's initial RAM disk.";
    cmdline = maybe types.str "console=ttyS0 root=/dev/vda" "The kernel's command line.";
    firmware = maybe types.path "/opt/firmware/CLOUDHV.fd" "The firmware, if not the node's.";
    restart =
      maybe
        (types.enum [
          "no"
          "on-crash"
          "always"
        ])
        "on-crash"
        "What follows the end of a run that nobody asked for: nothing, a new run after a crash, or always a new run.";
    watchdog =
      maybe types.bool true
        "Whether the guest gets a watchdog: once it feeds it and then hangs, it is reset.";
    autostart = maybe types.bool true "Whether it is started with the host.";
    autostartOrder =
      maybe types.ints.unsigned 10
        "Its place among those that are started with the host, lower ones first; 0 when null.";
    autostartDelay =
      maybe (types.ints.between 0 86400) 5
        "Seconds to wait after it is started with the host, before the next order begins.";
    limits = {
      cpus =
        maybe (types.numbers.between 0.001 255) 1.5
          "Processor time it may take of the host, in processors.";
      memory =
        maybe words.size "5G"
          "Memory it may take of the host, the guest's and the hypervisor's own together; more than `vram`.";
    };
    stopTimeout =
      maybe (types.ints.between 1 86400) 120
        "Seconds that the guest gets to shut down; 60 when null.";
    protect = maybe types.bool true "Whether it cannot be deleted.";
    labels = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        role = "db";
      };
      description = "What people note about it. Nothing of Virshle's own depends on it, and nothing in it is secret.";
    };
    disks = mkOption {
      type = types.attrsOf (types.submodule disk);
      default = { };
      example = {
        os = {
          image = "debian-12";
          size = "20G";
        };
      };
      description = "The disks.";
    };
    nets = mkOption {
      type = types.attrsOf (types.submodule net);
      default = { };
      example = {
        lan.ports = [ "8080:80" ];
      };
      description = "The network interfaces.";
    };
  };

  vcpu = types.ints.between 1 255;
  vram = words.size;
}
