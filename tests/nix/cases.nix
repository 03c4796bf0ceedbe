# Configurations of hosts, by name: each a list of modules. What they must come to is in mod.rs.
let
  small = {
    vcpu = 1;
    vram = "2G";
    disks.os.size = "5G";
  };
  lan = {
    type = "bridge";
    bridge = "br0";
    subnet = "10.44.0.0/24";
  };
  # With something to refer to.
  on = virshle: {
    services.virshle = {
      enable = true;
      templates.xs = small;
      networks.lan = lan;
    }
    // virshle;
  };
  vms = vms: [
    (on { inherit vms; })
  ];
  xs = {
    template = "xs";
  };
  twice =
    nic:
    vms {
      a = xs // {
        nets.lan = nic;
      };
      b = xs // {
        nets.lan = nic;
      };
    };
in
{
  # What options cannot be: refused by their types, but for the one that is right.
  mistyped = {
    right = vms { a = xs; };
    address = vms {
      a = xs // {
        nets.lan.address = "10.44.0";
      };
    };
    file-of-nix = vms {
      a = xs // {
        userData = [ ./cases.nix ];
      };
    };
    forward = vms {
      a = xs // {
        nets.lan.ports = [ "80" ];
      };
    };
    hypervisor = vms {
      a = xs // {
        hypervisor = "xen";
      };
    };
    mac = vms {
      a = xs // {
        nets.lan.mac = "01:00:00:00:00:01";
      };
    };
    name = vms { A = xs; };
    no-template = vms { a = { }; };
    running = vms {
      a = xs // {
        running = "yes";
      };
    };
    size = vms {
      a = xs // {
        vram = "2 apples";
      };
    };
    subnet = [
      (on {
        networks.lan = lan // {
          subnet = "10.44.0.0";
        };
      })
    ];
    unknown = vms {
      a = xs // {
        vrm = 2;
      };
    };
    vcpu = vms {
      a = xs // {
        vcpu = 0;
      };
    };
    vlan = [
      (on {
        networks.lan = lan // {
          vlan = 4095;
        };
      })
    ];

    # Nor what the options of NixOS cannot be.
    nixos-name = [ { boot.kernelParam = [ "quiet" ]; } ];
    nixos-value = [ { systemd.services.a.wantedBy = [ "multi-user" ]; } ];
  };

  hosts = {
    off = [ ];
    empty = [ { services.virshle.enable = true; } ];

    whole = [ ./example.nix ];
    changed = [
      ./example.nix
      { services.virshle.vms.db1.labels.note = "another"; }
    ];

    # One VM, said in two modules, and an order that is not that of the names.
    merged = [
      (on {
        vms.a = xs // {
          labels.role = "db";
          disks.os.size = "10G";
          nets.lan.ports = [ "8080:80" ];
        };
      })
      {
        services.virshle.vms.a = {
          labels.team = "x";
          disks.data = {
            size = "1G";
            order = 10;
          };
          nets.lan.ports = [ "8443:443" ];
          nets.second = {
            name = "lan";
            mac = "02:00:00:00:00:01";
          };
        };
      }
    ];

    # What has no option of its own, and what has, in the same list.
    settings = [
      (on {
        settings.network = [
          {
            name = "isle";
            type = "bridge";
            bridge = "br1";
            subnet = "10.45.0.0/24";
          }
        ];
        settings.node.accel = "tcg";
        node.hypervisor = "qemu";
      })
    ];

    emptied = [
      (on {
        templates.xs = small // {
          nets.lan.ports = [ "8080:80" ];
        };
        vms.a = xs;
        vms.b = xs // {
          nets.lan.ports = [ ];
        };
      })
    ];

    other-user = [
      (on {
        user = "vmm";
        members = [ "alice" ];
        apply.enable = false;
        hypervisors.cloudHypervisor.enable = false;
      })
    ];

    vhost = [
      (on {
        networks = {
          inherit lan;
          fast.subnet = "10.50.0.0/24";
        };
        vms.a = xs // {
          nets.fast = { };
        };
        openvswitch = {
          enable = true;
          dpdk.enable = true;
          dpdk.pmdCpuMask = "0x6";
          dpdk.socketMem = [
            512
            256
          ];
          hugepages.count = 512;
        };
      })
    ];
    warned = vms { } ++ [ { services.virshle.networks.fast.subnet = "10.50.0.0/24"; } ];
    vhost-large = [
      (on {
        openvswitch.enable = true;
        openvswitch.dpdk.enable = true;
        openvswitch.hugepages = {
          count = 4;
          size = "1G";
        };
      })
    ];

    firewall = [
      (on {
        openFirewall = true;
        openvswitch.enable = true;
        vms.a = xs // {
          nets.own.ports = [
            "8080:80"
            "127.0.0.1:2222:22"
            "5353:53/udp"
          ];
          nets.lan.ports = [ "9090:90" ];
        };
      })
      {
        networking.nftables.enable = true;
        services.virshle.networks = {
          tagged = {
            vlan = 7;
            subnet = "10.46.0.0/24";
          };
          theirs = {
            type = "bridge";
            bridge = "br9";
            create = false;
          };
          own.type = "user";
        };
      }
    ];

    # Each is to be refused.
    bad-two-vms = vms { a = xs; } ++ [
      {
        services.virshle.settings.vm = [
          {
            name = "a";
            template = "xs";
          }
        ];
      }
    ];
    bad-two-networks = vms { } ++ [ { services.virshle.networks.other.name = "lan"; } ];
    bad-mac = twice { mac = "02:00:00:00:00:AA"; } ++ [
      { services.virshle.vms.b.nets.lan.mac = "02:00:00:00:00:AA"; }
    ];
    bad-address = twice { address = "10.44.0.9"; };
    bad-ports = twice { ports = [ "8080:80" ]; };
    bad-ports-of-one-address = vms {
      a = xs // {
        nets.lan.ports = [ "8080:80" ];
      };
      b = xs // {
        nets.lan.ports = [ "127.0.0.1:8080:80" ];
      };
    };
    bad-ports-of-template = [
      (on {
        templates.xs = small // {
          nets.lan.ports = [ "8080:80" ];
        };
        vms.a = xs;
        vms.b = xs;
      })
    ];
    bad-subnets = vms { } ++ [
      {
        services.virshle.networks.wide = {
          type = "bridge";
          bridge = "br1";
          subnet = "10.44.0.128/25";
        };
      }
    ];
    bad-template = vms { a.template = "xl"; };
    bad-network = vms {
      a = xs // {
        nets.wan = { };
      };
    };
    bad-image = [
      (on {
        images.debian.path = "/srv/debian.raw";
        templates.xs = small // {
          disks.os.image = "debain";
        };
        vms.a = xs;
      })
    ];
    bad-vhost =
      vms {
        a = xs // {
          nets.fast = { };
        };
      }
      ++ [
        {
          services.virshle.networks.fast.subnet = "10.50.0.0/24";
          services.virshle.openvswitch.enable = true;
        }
      ];
    bad-protect = vms {
      a = xs // {
        onRemove = "delete";
        protect = true;
      };
    };
    bad-memory =
      vms {
        a = xs // {
          vramMax = "6G";
        };
        b = xs // {
          vram = "1536MiB";
        };
        c = xs // {
          running = false;
        };
      }
      ++ [ { services.virshle.memoryLimit = 7; } ];
    bad-member = [ (on { members = [ "virshle-vm" ]; }) ];
    bad-hypervisor =
      vms {
        a = xs // {
          hypervisor = "qemu";
        };
      }
      ++ [
        { services.virshle.hypervisors.qemu.enable = false; }
      ];

    # Each is near one that is refused.
    good-ports = vms {
      a = xs // {
        nets.lan.ports = [
          "10.0.0.1:8080:80"
          "5353:53/udp"
        ];
      };
      b = xs // {
        nets.lan.ports = [
          "10.0.0.2:8080:80"
          "5353:53/tcp"
        ];
      };
    };
    good-subnets = vms { } ++ [
      {
        services.virshle.networks = {
          beside = {
            type = "bridge";
            bridge = "br1";
            subnet = "10.44.1.0/24";
          };
          theirs = {
            type = "bridge";
            bridge = "br2";
            create = false;
            subnet = "10.44.0.0/24";
          };
        };
      }
    ];
    good-memory =
      vms {
        a = xs;
        b = xs // {
          vram = "1.5G";
        };
        c = xs // {
          running = false;
        };
      }
      ++ [ { services.virshle.memoryLimit = "3584MiB"; } ];

    # A mistake in `settings` is left to `v`, which says its place.
    left-to-v = [
      (on {
        settings.vm = [
          { template = "xs"; }
          { name = "b"; }
          {
            name = "c";
            template = "xs";
            net = [ { type.tap = { }; } ];
          }
        ];
      })
    ];
  };
}
