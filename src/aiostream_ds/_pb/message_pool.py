import betterproto2

default_message_pool = betterproto2.MessagePool()


class Message(betterproto2.Message):
    def _is_pydantic(self) -> bool:
        return False
