# What each test's host begins with: one VM, `web`, which alice may log into.
{ image, keys }:
{
  virtualisation = {
    cores = 2;
    memorySize = 4096;
    diskSize = 16 * 1024;
  };
  system.switch.enable = true;

  # `v vm ssh -i /etc/alice web`; ssh refuses a key that others may read.
  environment.etc.alice = {
    source = keys.snakeOilPrivateKey;
    mode = "0600";
  };

  services.virshle = {
    enable = true;
    networks.lan = {
      type = "bridge";
      bridge = "vmbr0";
      subnet = "10.44.0.0/24";
    };
    images.nixos.path = "${image}/nixos.img";
    templates.xs = {
      vcpu = 1;
      vram = "1G";
      disks.os = {
        image = "nixos";
        size = "8G";
      };
      nets.lan = { };
    };
    vms.web = {
      template = "xs";
      users.alice.authorizedKeys = [ keys.snakeOilPublicKey ];
    };
  };
}
