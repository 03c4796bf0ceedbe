-- Rows as schema 1 holds them; a test reads them with every later program.
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;

INSERT INTO vm VALUES (
    '6f1b0a1e-91a7-4d2c-9d52-0123456789ab', 1, 'web', 'local', 'xs', 'running', 'stop',
    '{"version":1,"uuid":"6f1b0a1e-91a7-4d2c-9d52-0123456789ab","number":1,"name":"web","template":"xs","hypervisor":"cloud-hypervisor","accel":"kvm","vcpu":1,"vram":"2GiB","boot":{"kind":"firmware","code":"/usr/share/cloud-hypervisor/CLOUDHV.fd","vars":null},"disks":[{"name":"os","source":"/var/lib/virshle/cache/nixos.raw","size":"50GiB","readonly":false}],"nics":[{"index":0,"network":"main","mac":"6e:1b:0a:1e:91:a7","link":{"kind":"vhost","bridge":"vsbr0","create":false},"address":{"ip":"10.44.0.2/24","gateway":"10.44.0.1","dns":["10.44.0.1"]}}],"seed":true}',
    '{"reason":"failed","code":1,"detail":"no such disk"}',
    '{"supervisor":{"pid":4711,"start_time":99},"hypervisor":{"pid":4712,"start_time":100},"ssh":"127.0.0.1:2201"}',
    NULL,
    '2025-01-02T03:04:05.123456789Z', '2025-01-02T03:05:00Z', '2025-01-02T03:04:59.5Z'
);
INSERT INTO address VALUES ('main', '10.44.0.2', '6f1b0a1e-91a7-4d2c-9d52-0123456789ab', 0);

INSERT INTO vm VALUES (
    '0a1b2c3d-91a7-4d2c-9d52-0123456789ab', 7, 'db', 'local', 'big', 'creating', NULL,
    '{"version":1,"uuid":"0a1b2c3d-91a7-4d2c-9d52-0123456789ab","number":7,"name":"db","template":"big","hypervisor":"qemu","accel":"tcg","vcpu":8,"vram":"512MiB","boot":{"kind":"kernel","kernel":"/boot/vmlinuz","initramfs":"/boot/initrd","cmdline":"console=ttyS0"},"disks":[],"nics":[{"index":0,"network":"lan","mac":"0a:1b:2c:3d:91:a7","link":{"kind":"tap","bridge":"br0","switch":"bridge","create":true},"address":null},{"index":1,"network":"out","mac":"0a:1b:2c:3d:91:a8","link":{"kind":"user"},"address":null}],"seed":false}',
    NULL, NULL, '{"pid":4713,"start_time":101}',
    '2025-01-02T03:04:06Z', '2025-01-02T03:04:06Z', NULL
);
UPDATE last_number SET number = 7;
