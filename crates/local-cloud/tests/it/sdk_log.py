"""The vendor's log SDK, unmodified: a project from its creation to its removal, once with each signature."""

import sys
import time

from aliyun.log import GetHistogramsRequest, GetLogsRequest, IndexConfig, IndexKeyConfig, IndexLineConfig
from aliyun.log import ListLogstoresRequest, LogClient, LogException, LogItem, PutLogsRequest

KEY, SECRET, REGION = sys.argv[1:4]


def refused(code, call, *arguments):
    try:
        call(*arguments)
    except LogException as error:
        assert error.get_error_code() == code, error
        assert error.get_request_id(), error
    else:
        raise AssertionError("not refused with " + code)


def walk(version):
    extra = {"auth_version": "v4", "region": REGION} if version == "v4" else {}
    client = LogClient("http://%s.log.aliyuncs.com" % REGION, KEY, SECRET, **extra)
    project, store = "chat-" + version, "devices"
    refused("ProjectNotExist", client.get_project, project)
    client.create_project(project, "a chat service")
    assert client.get_project(project).get_description() == "a chat service"
    assert project in [one["projectName"] for one in client.list_project().get_projects()]
    refused("ProjectAlreadyExist", client.create_project, project, "")
    refused("LogStoreNotExist", client.get_logstore, project, store)
    client.create_logstore(project, store, ttl=3, shard_count=1)
    assert client.get_logstore(project, store).get_ttl() == 3
    client.update_logstore(project, store, ttl=5)
    assert client.get_logstore(project, store).get_ttl() == 5
    assert client.list_logstores(ListLogstoresRequest(project)).get_logstores() == [store]
    assert client.list_logstore(project, "dev").get_logstores() == [store]

    line = IndexLineConfig(token_list=[",", " ", "=", ":"], case_sensitive=False)
    keys = {"device_id": IndexKeyConfig(token_list=[","], index_type="text", doc_value=True),
            "latency_ms": IndexKeyConfig(index_type="long", doc_value=True)}
    client.create_index(project, store, IndexConfig(ttl=3, line_config=line, key_config_list=keys))
    assert set(client.get_index_config(project, store).get_index_config().key_config_list) == set(keys)

    now = int(time.time())
    for compress in (True, False):
        items = [LogItem(now - 30 + number, [("device_id", "设备-%d" % (number % 3)), ("latency_ms", str(number * 10))], 5)
                 for number in range(10)]
        client.put_logs(PutLogsRequest(project, store, "chat", "10.0.0.1", items, compress=compress,
                                       logtags=[("zone", "h")]))
    hashed = PutLogsRequest(project, store, "chat", "", [LogItem(now - 5, [("device_id", "d 9")])], hashKey="00")
    client.put_logs(hashed)

    query = "* | select count(distinct device_id) as active_devices, avg(latency_ms) as a"
    answer = client.get_log(project, store, now - 60, now + 1, query=query)
    assert answer.is_completed() and answer.get_has_sql()
    assert answer.get_logs()[0].get_contents() == {"active_devices": "4", "a": "45.0"}, answer.get_logs()[0].get_contents()
    grouped = client.get_log(project, store, now - 60, now + 1, query="latency_ms > 40 | "
                             "select device_id, count(1) as n group by device_id order by n desc, device_id limit 2")
    assert [one.get_contents()["n"] for one in grouped.get_logs()] == ["4", "4"], grouped.get_body()
    found = client.get_logs(GetLogsRequest(project, store, now - 60, now + 1, query="device_id: 设备-1 and latency_ms >= 40",
                                           line=3, reverse=True))
    assert found.get_count() == 3, found.get_body()
    first = found.get_logs()[0]
    assert int(first.get_time()) == now - 23 and first.get_source() == "10.0.0.1", first.get_contents()
    assert first.get_contents()["__tag__:zone"] == "h" and first.get_contents()["__topic__"] == "chat"
    everything = client.get_log(project, store, now - 60, now + 1, query="*", size=-1)
    assert everything.get_count() == 21, everything.get_count()
    histograms = client.get_histograms(GetHistogramsRequest(project, store, now - 60, now + 1, query="latency_ms < 50"))
    assert histograms.is_completed() and histograms.get_total_count() == 10

    client._get_logs_v2_enabled = False
    old = client.get_log(project, store, now - 60, now + 1, query=query)
    assert old.is_completed() and old.get_logs()[0].get_contents()["active_devices"] == "4"
    client._get_logs_v2_enabled = True

    shard = client.list_shards(project, store).get_shards_info()[0]["shardID"]
    pulled = [log for part in client.pull_log(project, store, shard, "begin", "end", batch_size=1)
              for log in part.get_flatten_logs_json()]
    assert len(pulled) == 21, len(pulled)

    refused("ParameterInvalid", client.get_log, project, store, now - 60, now, None, "* | drop table log")
    client.delete_index(project, store)
    client.delete_logstore(project, store)
    client.delete_project(project)
    print("log SDK, signature %s: ok" % version)


walk("v1")
walk("v4")
