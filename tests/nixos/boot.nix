{
  name = "virshle-boot";

  nodes.host = { };

  testScript = ''
    host.wait_for_unit("virshle-apply.service")

    with subtest("ssh answers"):
        host.wait_until_succeeds("v vm ssh -i /etc/alice web -- true", timeout=1800)

    with subtest("the guest is who it was declared to be"):
        assert host.succeed("v vm ssh -i /etc/alice web -- hostname").strip() == "web"
        assert host.succeed("v vm ssh -i /etc/alice web -- sudo id -u").strip() == "0"

    with subtest("nothing is left to do"):
        host.succeed("v plan")
  '';
}
