"""Drives the local cloud with the vendor's SDKs: sdk.py PORT KEY SECRET REGION."""

import json
import sys
import time

port, key, secret, region = sys.argv[1:5]


def wait(what, look):
    deadline = time.time() + 20
    while time.time() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise SystemExit(f"not in time: {what}")


def new_sdk(algorithm):
    from alibabacloud_eci20180808 import models
    from alibabacloud_eci20180808.client import Client
    from alibabacloud_tea_openapi.models import Config

    config = Config(access_key_id=key, access_key_secret=secret, region_id=region)
    config.protocol, config.endpoint = "http", f"127.0.0.1:{port}"
    config.signature_algorithm = algorithm
    client = Client(config)
    container = models.CreateContainerGroupRequestContainer(
        name="main", image="busybox", command=["/bin/sh", "-c", "echo a+b *~(c) 中文"],
        tty=False, cpu=0.5, memory=1.0,
        environment_var=[models.CreateContainerGroupRequestContainerEnvironmentVar(key="LANG", value="中文")])
    created = client.create_container_group(models.CreateContainerGroupRequest(
        region_id=region, container_group_name="from-sdk", container=[container],
        tag=[models.CreateContainerGroupRequestTag(key="who", value="sdk")],
        client_token=f"token-{algorithm}")).body
    group_id = created.container_group_id
    describe = models.DescribeContainerGroupsRequest(
        region_id=region, container_group_ids=json.dumps([group_id]))

    def running():
        groups = client.describe_container_groups(describe).body.container_groups
        return groups and groups[0].status == "Running" and groups[0]

    group = wait("running", running)
    assert group.containers[0].commands[2] == "echo a+b *~(c) 中文", group.containers[0].commands
    assert group.containers[0].environment_vars[0].value == "中文"
    assert group.cpu == 0.5 and group.memory == 1.0, (group.cpu, group.memory)
    assert any(event.reason == "Started" for event in group.events)
    status = client.describe_container_group_status(models.DescribeContainerGroupStatusRequest(
        region_id=region, container_group_ids=json.dumps([group_id]))).body
    assert status.data[0].pod_status.phase == "Running"
    executed = client.exec_container_command(models.ExecContainerCommandRequest(
        region_id=region, container_group_id=group_id, container_name="main",
        command=json.dumps(["echo", "hi"]), sync=True, tty=False)).body
    assert "echo hi" in executed.sync_response, executed.sync_response
    def ask(name, **members):
        request = getattr(models, "".join(part.capitalize() for part in name.split("_")) + "Request")
        return getattr(client, name)(request(region_id=region, **members)).body

    def restarts():
        group = running()
        return group and group.containers[0].restart_count

    log = ask("describe_container_log", container_group_id=group_id, container_name="main", tail=10)
    assert log.content == f"simulated container main of {group_id}\n", log.content
    session = ask("exec_container_command", container_group_id=group_id, container_name="main", command='["sh"]')
    assert session.web_socket_uri.startswith("ws://") and session.http_url, session
    ask("restart_container_group", container_group_id=group_id)
    wait("restarted", lambda: restarts() == 1)
    ask("update_container_group", container_group_id=group_id, update_type="IncrementalUpdate", container=[
        models.UpdateContainerGroupRequestContainer(name="main", image="busybox:2", cpu=0.5, memory=1.0)])
    wait("updated", lambda: restarts() == 2)
    assert running().containers[0].image == "busybox:2"
    tag = models.TagResourcesRequestTag(key="stage", value="test")
    ask("tag_resources", resource_type="containergroup", resource_id=[group_id], tag=[tag])
    tags = ask("list_tag_resources", resource_type="containergroup", resource_id=[group_id]).tag_resources
    assert {tag.tag_key for tag in tags} >= {"who", "stage"}, tags
    ask("untag_resources", resource_type="containergroup", resource_id=[group_id], tag_key=["stage"])
    price = ask("describe_container_group_price", cpu=2.0, memory=4.0, spot_strategy="SpotAsPriceGo").price_info
    assert price.price.trade_price == 0.00012252, price.price.trade_price
    assert price.spot_prices.spot_price[0].spot_price > 0
    metrics = ask("describe_multi_container_group_metric", container_group_ids=json.dumps([group_id])).monitor_datas
    assert metrics[0].records[0].cpu.limit == 500, metrics[0].records[0].cpu
    assert ask("list_usage").attributes["UsedCpu"] >= 0.5
    assert ask("describe_regions").regions[0].region_id == region
    cache = ask("create_image_cache", image_cache_name="sdk", image=["busybox:1"]).image_cache_id
    assert ask("describe_image_caches", image_cache_id=cache).image_caches[0].status == "Preparing"
    ask("delete_image_cache", image_cache_id=cache)
    data = ask("create_data_cache", size=20, data_source=models.CreateDataCacheRequestDataSource(
        type="URL", options={"repoId": "a/b", "k.x": "y"})).data_cache_id
    described = ask("describe_data_caches", data_cache_id=[data]).data_caches[0]
    assert json.loads(described.data_source.options) == {"repoId": "a/b", "k.x": "y"}, described.data_source.options
    ask("delete_data_cache", data_cache_id=data)
    events = client.describe_container_group_events(models.DescribeContainerGroupEventsRequest(
        region_id=region, container_group_ids=json.dumps([group_id]))).body.data[0].events
    assert any(event.reason == "Started" and event.involved_object.kind == "Pod" for event in events), events
    ask("delete_container_group", container_group_id=group_id)
    wait("gone", lambda: not client.describe_container_groups(describe).body.container_groups)
    try:
        client.exec_container_command(models.ExecContainerCommandRequest(
            region_id=region, container_group_id=group_id, container_name="main", command='["x"]'))
        raise SystemExit("exec in a deleted group was not refused")
    except Exception as error:
        assert "ContainerGroupNotFound" in str(error), error


def old_sdk():
    from aliyunsdkcore.acs_exception.exceptions import ServerException
    from aliyunsdkcore.client import AcsClient
    from aliyunsdkeci.request.v20180808 import (
        CreateContainerGroupRequest, DeleteContainerGroupsRequest, DescribeContainerGroupPriceRequest,
        DescribeContainerGroupsRequest, DescribeContainerGroupStatusRequest, DescribeContainerLogRequest,
        ExecContainerCommandRequest, RestartContainerGroupRequest, UpdateContainerGroupRequest)

    client = AcsClient(key, secret, region, port=int(port))

    def call(request, by=client):
        request.set_endpoint("127.0.0.1")
        return json.loads(by.do_action_with_exception(request))

    create = CreateContainerGroupRequest.CreateContainerGroupRequest()
    create.set_ContainerGroupName("from-old-sdk")
    create.set_Containers([{"Name": "main", "Image": "busybox"}])
    group_id = call(create)["ContainerGroupId"]

    def groups():
        describe = DescribeContainerGroupsRequest.DescribeContainerGroupsRequest()
        describe.set_ContainerGroupIds(json.dumps([group_id]))
        return call(describe)["ContainerGroups"]

    def ask(module, **members):
        request = getattr(module, module.__name__.rsplit(".", 1)[1])()
        for name, value in members.items():
            getattr(request, f"set_{name}")(value)
        return call(request)

    def restarts():
        group = groups()[0]
        return group["Status"] == "Running" and group["Containers"][0]["RestartCount"]

    wait("running", lambda: groups()[0]["Status"] == "Running")
    status = ask(DescribeContainerGroupStatusRequest, ContainerGroupIds=json.dumps([group_id]))
    assert status["Data"][0]["PodStatus"]["Phase"] == "Running", status
    log = ask(DescribeContainerLogRequest, ContainerGroupId=group_id, ContainerName="main", Tail=5)
    assert group_id in log["Content"], log
    executed = ask(ExecContainerCommandRequest, ContainerGroupId=group_id, ContainerName="main",
                   Command='["echo","old"]', Sync=True, TTY=False)
    assert "echo old" in executed["SyncResponse"], executed
    ask(RestartContainerGroupRequest, ContainerGroupId=group_id)
    wait("restarted", lambda: restarts() == 1)
    ask(UpdateContainerGroupRequest, ContainerGroupId=group_id, Containers=[{"Name": "main", "Image": "busybox:2"}],
        Tags=[{"Key": "who", "Value": "old"}])
    wait("updated", lambda: restarts() == 2)
    assert any(tag["Key"] == "who" for tag in groups()[0]["Tags"]), groups()[0]["Tags"]
    price = ask(DescribeContainerGroupPriceRequest, Cpu=2.0, Memory=4.0)["PriceInfo"]["Price"]
    assert price["TradePrice"] == 0.00012252, price
    ask(DeleteContainerGroupsRequest, ContainerGroupIds=json.dumps([group_id]))
    wait("gone", lambda: not groups())
    try:
        call(DescribeContainerGroupsRequest.DescribeContainerGroupsRequest(),
             AcsClient(key, "wrong", region, port=int(port)))
        raise SystemExit("a wrong secret was let in")
    except ServerException as error:
        # The SDK tells a wrong secret from a wrong signature by the service's string to sign.
        assert error.get_error_code() == "InvalidAccessKeySecret", error


for name, algorithm in (("v3", "ACS3-HMAC-SHA256"), ("v1", "v2")):
    new_sdk(algorithm)
    print(f"new SDK, signature {name}: ok")
old_sdk()
print("old SDK: ok")
