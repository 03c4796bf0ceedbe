#!/usr/bin/python3
"""What the network tests run in a guest: a server that tells who asks, and who asks one.

    talk.py serve PORT
    talk.py tcp|udp HOST PORT WORDS    prints the answer, or `nothing: REASON`
    talk.py tell HOST PORT WORDS       by UDP, three times, without waiting for an answer
"""

import ipaddress
import socket
import sys
import threading

WAIT = 3


def said(sender, words):
    address = ipaddress.ip_address(sender[0].split("%")[0])
    return f"{getattr(address, 'ipv4_mapped', None) or address} ".encode() + words


def tcp(listener):
    while True:
        stream, sender = listener.accept()
        with stream:
            stream.settimeout(WAIT)
            words = b""
            try:
                while some := stream.recv(2048):
                    words += some
                stream.sendall(said(sender, words))
            except OSError:
                pass  # who goes away early has had no answer


def serve(port):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    threading.Thread(target=tcp, args=(listener,), daemon=True).start()
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    datagrams.bind(("::", port))
    while True:
        words, sender = datagrams.recvfrom(2048)
        datagrams.sendto(said(sender, words), sender)


def ask_tcp(host, port, words):
    with socket.create_connection((host, port), WAIT) as stream:
        stream.sendall(words)
        stream.shutdown(socket.SHUT_WR)
        answer = b""
        while some := stream.recv(2048):
            answer += some
        return answer


def connected(host, port):
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    datagrams = socket.socket(family, kind, protocol)
    datagrams.settimeout(WAIT / 2)
    datagrams.connect(address)
    return datagrams


def ask_udp(host, port, words):
    with connected(host, port) as datagrams:
        for last in (False, True):
            datagrams.send(words)
            try:
                return datagrams.recv(2048)
            except TimeoutError:
                if last:
                    raise


def tell(host, port, words):
    with connected(host, port) as datagrams:
        for _ in range(3):
            try:
                datagrams.send(words)
            except OSError:
                pass  # a neighbour that does not answer


def main():
    what, *rest = sys.argv[1:]
    if what == "serve":
        serve(int(rest[0]))
    host, port, words = rest[0], int(rest[1]), rest[2].encode()
    if what == "tell":
        tell(host, port, words)
        return
    try:
        print({"tcp": ask_tcp, "udp": ask_udp}[what](host, port, words).decode())
    except OSError as error:
        print(f"nothing: {error}")


main()
