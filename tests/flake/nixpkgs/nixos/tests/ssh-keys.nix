_: {
  snakeOilPrivateKey = "/nix/store/private-key";
  snakeOilPublicKey = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHHs root@example";
}
