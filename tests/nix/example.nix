# A host with everything that an option can say: what the TOML of it must be is in example.toml.
{
  services.virshle = {
    enable = true;
    node = {
      hypervisor = "cloud-hypervisor";
      accel = "kvm";
      ovsDb = "unix:/run/openvswitch/db.sock";
      hostsFile = "/run/virshle-hosts";
      cloudHypervisor.program = "/opt/ch/cloud-hypervisor";
      cloudHypervisor.firmware = "/opt/ch/CLOUDHV.fd";
      qemu.program = "/opt/qemu/qemu-system-x86_64";
      qemu.firmware = "/opt/qemu/OVMF_CODE_4M.fd";
      qemu.vars = "/opt/qemu/OVMF_VARS_4M.fd";
    };
    user = "vmm";

    images.debian-12.path = "/srv/images/debian-12.raw";

    networks = {
      lan = {
        type = "bridge";
        bridge = "br0";
        create = true;
        subnet = "10.44.0.0/24";
        subnet6 = "fd12:3456:789a:1::/64";
        gateway = "10.44.0.1";
        dns = [ "9.9.9.9" ];
        domain = "lab.example";
        dhcp = true;
        nat = true;
        isolated = false;
        mtu = 1500;
      };
      dmz = {
        type = "ovs";
        bridge = "vsbr1";
        datapath = "netdev";
        uplink = "eth1";
        vlan = 44;
      };
      own.type = "user";
    };

    templates.xs = {
      vcpu = 1;
      vcpuMax = 4;
      vram = "2G";
      vramMax = "8G";
      hypervisor = "auto";
      firmware = "/opt/ch/CLOUDHV.fd";
      restart = "on-crash";
      watchdog = true;
      autostart = true;
      autostartOrder = 10;
      autostartDelay = 5;
      limits.cpus = 1.5;
      limits.memory = "12G";
      stopTimeout = 120;
      labels."example.org/tier" = "small";
      disks = {
        os = {
          image = "debian-12";
          size = "20G";
          order = 1;
        };
        data.size = "5G";
        cdrom = {
          path = "/srv/images/tools.raw";
          readonly = true;
        };
      };
      nets.lan = { };
    };
    templates.direct = {
      vcpu = 2;
      vram = 1;
      kernel = "/srv/boot/vmlinuz";
      initramfs = "/srv/boot/initrd.img";
      cmdline = "console=ttyS0";
      protect = true;
      nets.lan = {
        address = "10.44.0.11";
        mac = "02:00:00:00:00:02";
        type = "tap";
        ports = [ "8081:80" ];
        allow = [ "tcp/80" ];
        deny = [ "out tcp/25" ];
        rate = "1Gbit";
        spoof = true;
      };
    };

    vms = {
      db1 = {
        template = "xs";
        vram = "4G";
        vcpu = 2;
        running = "leave";
        onRemove = "keep";
        labels.role = "db";
        vcpuMax = 8;
        vramMax = "12G";
        hypervisor = "qemu";
        firmware = "/opt/ch/OTHER.fd";
        restart = "always";
        watchdog = false;
        autostart = true;
        autostartOrder = 20;
        autostartDelay = 0;
        limits.cpus = 2;
        limits.memory = "16G";
        stopTimeout = 300;
        disks.data.size = "50G";
        disks.log = {
          image = "debian-12";
          readonly = false;
        };
        disks.more.path = "/srv/images/more.raw";
        nets.lan = {
          address = "10.44.0.10";
          mac = "02:00:00:00:00:01";
          type = "tap";
          ports = [
            "8080:80"
            "127.0.0.1:2222:22/tcp"
          ];
          allow = [ "tcp/22" ];
          deny = [ "out tcp/25" ];
          rate = "100Mbit";
          spoof = false;
        };
        nets.own = { };
        users.alice = {
          authorizedKeys = [
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f alice@desk"
          ];
          shell = "/bin/bash";
        };
        users.bob.sudo = false;
        userData = [ "/run/secrets/db1.toml" ];
      };
      web = {
        template = "direct";
        running = false;
        kernel = "/srv/boot/other/vmlinuz";
        initramfs = "/srv/boot/other/initrd.img";
        cmdline = "console=ttyS0 quiet";
        protect = false;
        onRemove = "delete";
      };
    };
  };
}
