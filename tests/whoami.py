"""A name server on loopback that answers who asks it, or whatever a test lets it say."""

from __future__ import annotations

import contextlib
import socket
import threading

import dns.message
import dns.rdatatype
import dns.rrset


class NameServer:
    """A name server on one port of UDP and TCP; ``fill`` makes a reply, None for silence."""

    def __init__(self, fill):
        self.fill, self.asked = fill, []
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(self.tcp.getsockname())
        self.port = self.tcp.getsockname()[1]
        self.threads = [threading.Thread(target=work) for work in (self._datagrams, self._streams)]
        for thread in self.threads:
            thread.start()

    def _reply(self, wire, transport):
        query = dns.message.from_wire(wire)
        question = query.question[0]
        self.asked.append((transport, question.name.to_text(True), question.rdtype.name, question.rdclass.name))
        reply = self.fill(dns.message.make_response(query), transport)
        return reply if reply is None or isinstance(reply, bytes) else reply.to_wire(max_size=65535)

    def _datagrams(self):
        while wire := (got := self.udp.recvfrom(4096))[0]:
            if (reply := self._reply(wire, "udp")) is not None:
                self.udp.sendto(reply, got[1])

    def _streams(self):
        while True:
            stream, _ = self.tcp.accept()
            with stream, contextlib.suppress(OSError):
                head = stream.recv(2)
                if not head:
                    return
                if (reply := self._reply(stream.recv(int.from_bytes(head)), "tcp")) is not None:
                    stream.sendall(len(reply).to_bytes(2) + reply)

    def close(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in self.threads:
            thread.join()
        self.udp.close()
        self.tcp.close()


def says(*values):
    """Answer with these, in the type and class of the question."""

    def fill(reply, _):
        asked = reply.question[0]
        texts = [f'"{value}"' for value in values] if asked.rdtype == dns.rdatatype.TXT else values
        reply.answer.append(dns.rrset.from_text(asked.name, 60, asked.rdclass, asked.rdtype, *texts))
        return reply

    return fill
