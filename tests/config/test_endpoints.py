"""Which addresses may be reached."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import AddressRefusedError, AddressRules, parse_endpoint

PUBLIC = AddressRules()
INTRANET = AddressRules([ipaddress.ip_network("10.20.0.0/16"), ipaddress.ip_network("fd12:3456::/32")])


@pytest.mark.parametrize(
    "url",
    [
        "https://platform.example.gov.cn/hooks/1?site=A&x=%E4%B8%AD",
        "https://platform.example:8443",
        "https://xn--fiqs8s.example/",
        "https://8.8.8.8/hook",
        "https://[2400:3200::1]:8443/hook",
        "https://localhost.example.com/",
    ],
)
def test_public_https_is_allowed(url: str) -> None:
    assert PUBLIC.check_url(url).url == url


@pytest.mark.fault("F41")
@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://127.0.0.1/", id="loopback"),
        pytest.param("https://127.8.9.1/", id="any loopback"),
        pytest.param("https://[::1]/", id="IPv6 loopback"),
        pytest.param("https://localhost/", id="localhost by name"),
        pytest.param("https://LOCALHOST./", id="localhost with a full stop"),
        pytest.param("https://a.localhost/", id="below localhost"),
        pytest.param("https://169.254.169.254/latest/meta-data", id="metadata"),
        pytest.param("https://100.100.100.200/", id="metadata of another cloud"),
        pytest.param("https://[fd00:ec2::254]/", id="metadata over IPv6"),
        pytest.param("https://169.254.7.7/", id="link-local"),
        pytest.param("https://[fe80::1]/", id="IPv6 link-local"),
        pytest.param("https://10.0.0.1/", id="private 10"),
        pytest.param("https://172.16.0.1/", id="private 172"),
        pytest.param("https://192.168.1.1/", id="private 192"),
        pytest.param("https://100.64.0.1/", id="carrier NAT"),
        pytest.param("https://[fd12::1]/", id="IPv6 private"),
        pytest.param("https://0.0.0.0/", id="unspecified"),
        pytest.param("https://[::]/", id="IPv6 unspecified"),
        pytest.param("https://224.0.0.1/", id="multicast"),
        pytest.param("https://255.255.255.255/", id="broadcast"),
        pytest.param("https://240.0.0.1/", id="reserved"),
        pytest.param("https://[::ffff:127.0.0.1]/", id="mapped"),
        pytest.param("https://[::ffff:a9fe:a9fe]/", id="mapped metadata in hex"),
        pytest.param("https://[::127.0.0.1]/", id="compatible"),
        pytest.param("https://[64:ff9b::7f00:1]/", id="NAT64"),
        pytest.param("https://[2002:7f00:1::]/", id="6to4"),
        pytest.param("https://2130706433/", id="decimal"),
        pytest.param("https://0x7f000001/", id="hexadecimal"),
        pytest.param("https://0177.0.0.1/", id="octal"),
        pytest.param("https://127.1/", id="short"),
        pytest.param("https://127.0.0.1./", id="address with a full stop"),
        pytest.param("https://8.8.8.08/", id="leading zero"),
        pytest.param("https://8.8.8.256/", id="no octet"),
        pytest.param("https://0x.example.0x7f/", id="last label a number"),
        pytest.param("https://１２７.０.０.１/", id="full-width digits"),
        pytest.param("https://127。0。0。1/", id="ideographic full stops"),
        pytest.param("https://user@8.8.8.8/", id="user name"),
        pytest.param("https://platform.example:443@127.0.0.1/", id="host as user name"),
        pytest.param("https://8.8.8.8\\@127.0.0.1/", id="backslash"),
        pytest.param("https://8.8.8.8#@127.0.0.1/", id="fragment"),
        pytest.param("https://8.8.8.8 @127.0.0.1/", id="space"),
        pytest.param("https://8.8.8.8\t/", id="tab"),
        pytest.param("https://8.8.8.8/\r\nX: 1", id="line break"),
        pytest.param("https://8.8.8.8%2f@127.0.0.1", id="encoded slash"),
        pytest.param("https://%31%32%37.0.0.1/", id="encoded host"),
        pytest.param("https://[fe80::1%25eth0]/", id="zone"),
        pytest.param("https:///path", id="no host"),
        pytest.param("https:8.8.8.8", id="no slashes"),
        pytest.param("https://8.8.8.8:0/", id="port 0"),
        pytest.param("https://8.8.8.8:65536/", id="port too high"),
        pytest.param("https://8.8.8.8:+80/", id="signed port"),
        pytest.param("https://-a.example/", id="hyphen first"),
        pytest.param("https://a..b/", id="empty label"),
        pytest.param("https://[127.0.0.1]/", id="IPv4 in brackets"),
        pytest.param("HTTPS://8.8.8.8/", id="capitals in the scheme"),
        pytest.param("http://8.8.8.8/", id="plain http"),
        pytest.param("http://platform.example/", id="plain http by name"),
        pytest.param("ftp://8.8.8.8/", id="another scheme"),
        pytest.param("file:///etc/passwd", id="file"),
        pytest.param("https://a.example/" + "x" * 2048, id="endless"),
    ],
)
def test_everything_else_is_refused(url: str) -> None:
    with pytest.raises(AddressRefusedError) as refused:
        PUBLIC.check_url(url)
    assert str(refused.value).isprintable()


@pytest.mark.fault("F41")
def test_a_refusal_shows_no_password() -> None:
    with pytest.raises(AddressRefusedError) as refused:
        PUBLIC.check_url("https://city:hunter2@platform.example/")
    assert "hunter2" not in str(refused.value)


@pytest.mark.fault("F41")
@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://10.20.3.4/", True),
        ("http://10.20.3.4/", True),
        ("http://[fd12:3456::1]/", True),
        ("https://[::ffff:10.20.3.4]/", True),
        ("https://10.21.0.1/", False),
        ("http://10.21.0.1/", False),
        ("http://8.8.8.8/", False),
        ("https://8.8.8.8/", True),
        ("https://127.0.0.1/", False),
    ],
)
def test_a_listed_network_allows_itself_and_nothing_more(url: str, allowed: bool) -> None:
    if allowed:
        INTRANET.check_url(url)
    else:
        with pytest.raises(AddressRefusedError):
            INTRANET.check_url(url)


@pytest.mark.fault("F41")
def test_metadata_is_refused_even_inside_a_listed_network() -> None:
    rules = AddressRules([ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("fd00::/8")])
    rules.check_url("http://169.254.7.7/")
    for url in ("http://169.254.169.254/", "https://[fd00:ec2::254]/", "http://[::ffff:169.254.169.254]/"):
        with pytest.raises(AddressRefusedError):
            rules.check_url(url)


@pytest.mark.fault("F40")
def test_of_a_names_addresses_only_permitted_ones_are_kept() -> None:
    found = INTRANET.permitted(["10.20.0.5", "127.0.0.1", "8.8.8.8", "fe80::1%eth0"], host="h", plain=True)
    assert found == ["10.20.0.5"]
    assert INTRANET.permitted(["8.8.8.8", "10.20.0.5"], host="h", plain=False) == ["8.8.8.8", "10.20.0.5"]


@pytest.mark.fault("F40")
@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["10.0.0.8", "::1"], ["fe80::1%eth0"], []])
def test_a_name_without_a_permitted_address_is_refused(addresses: list[str]) -> None:
    with pytest.raises(AddressRefusedError):
        INTRANET.permitted(addresses, host="h", plain=False)


@pytest.mark.fault("F41")
@given(st.integers(0, 2**32 - 1))
def test_no_spelling_of_an_address_gets_past_its_plain_form(number: int) -> None:
    plain = ipaddress.IPv4Address(number)
    try:
        PUBLIC.check_address(plain, plain=False)
        public = True
    except AddressRefusedError:
        public = False
    mapped = ipaddress.IPv6Address(f"::ffff:{plain}")
    if not public:
        nat64 = ipaddress.IPv6Address((0x64FF9B << 96) | number)
        six_to_four = ipaddress.IPv6Address(f"2002:{number >> 16:x}:{number & 0xFFFF:x}::")
        for other in (mapped, nat64, six_to_four):
            with pytest.raises(AddressRefusedError):
                PUBLIC.check_address(other, plain=False)
    for host in (str(number), hex(number), f"0{number >> 24:o}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"):
        with pytest.raises(AddressRefusedError):
            parse_endpoint(f"https://{host}/")


@given(st.text(max_size=40))
def test_no_text_breaks_the_parser(text: str) -> None:
    for url in (text, f"https://{text}/", f"https://a.example/{text}"):
        try:
            endpoint = parse_endpoint(url)
        except AddressRefusedError:
            continue
        assert endpoint.host
        assert url.isascii()
        assert "@" not in url.split("//")[1].split("/")[0]
